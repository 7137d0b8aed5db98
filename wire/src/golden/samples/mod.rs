//! A sample of every struct and of every variant of every enum that travels.

mod basics;
mod datanode;
mod executor;
mod namenode;
mod scheduler;
mod values;

use super::book::Book;

/// All samples.
pub(super) fn all() -> Book {
    let mut book = Book::default();
    basics::add(&mut book);
    datanode::add(&mut book);
    executor::add(&mut book);
    namenode::add(&mut book);
    namenode::add_answers(&mut book);
    scheduler::add(&mut book);
    scheduler::add_answers(&mut book);
    book
}
