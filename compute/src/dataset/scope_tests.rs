//! Programs with scopes, in a driver and in workers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

use situ_runtime::disk::Disk;
use situ_runtime::disk::memory::MemoryDisk;

use super::Context;
use crate::program::error::{ProgramError, ProgramResult};
use crate::program::local::{LocalOptions, StillClock, context};
use crate::program::rehearsal::Rehearsal;

fn local() -> Context {
    context(MemoryDisk::default(), StillClock, Path::new("/r"), LocalOptions::default())
}

fn is_driver(context: &Context) -> bool {
    context.backend().driver_files().is_some()
}

#[test]
fn a_loop_of_scopes_keeps_nothing_but_what_they_return() {
    const ROUNDS: u64 = 1_000;
    let job = Rehearsal::new(2, false);
    let held = Arc::new(Mutex::new(0));
    let most = Arc::clone(&held);
    let seen = job
        .run(|context| {
            let token = Arc::new(());
            let base = context.parallelize((0..8_u64).collect(), 2).persist();
            let mut last = 0;
            for round in 0..ROUNDS {
                last = context.scope("round", |context| {
                    let token = Arc::clone(&token);
                    let step = base.map(move |n| {
                        let _ = &token;
                        (n % 2, n + last)
                    });
                    let kept = step.persist();
                    let sums = kept.reduce_by_key(|one, other| one + other, 2);
                    let values = context.share(round)?;
                    assert_eq!((sums.count()?, values), (2, round));
                    Ok(kept.count()? + round)
                })?;
            }
            assert_eq!(last, 8 + ROUNDS - 1);
            let mut most = most.lock().unwrap();
            *most = (*most).max(Arc::strong_count(&token));
            Ok(())
        })
        .unwrap();
    assert!(seen.planned <= 8 && seen.kept <= 8 && seen.shuffles <= 2, "{seen:?}");
    assert!(seen.datasets_released as u64 >= ROUNDS, "{seen:?}");
    assert_eq!(*held.lock().unwrap(), 1);
    assert_eq!(job.results(), 1, "what the driver gave for the whole program");
}

#[test]
fn values_that_are_files_go_with_their_scope() {
    let job = Rehearsal::new(2, false);
    let disk = job.disk.clone();
    let result = job.run(|context| {
        for round in 0..3_u64 {
            let sum = context.scope("round", |context| {
                let large = context.broadcast(vec![round; 10_000])?;
                context.parallelize(vec![0_usize, 1], 2).map(move |n| large[n]).reduce(|one, other| one + other)
            });
            assert_eq!(sum?, Some(2 * round));
        }
        Ok(())
    });
    result.unwrap();
    let mut files = Vec::new();
    let mut open = vec![std::path::PathBuf::from("/r/files/.situ")];
    while let Some(directory) = open.pop() {
        for entry in disk.list(&directory).unwrap() {
            let path = directory.join(&entry.name);
            if entry.is_directory { open.push(path) } else { files.push(path) }
        }
    }
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn who_comes_late_passes_over_scopes_that_have_ended() {
    let (runs, late) = (AtomicU64::new(0), AtomicBool::new(false));
    let program = |context: &Context| -> ProgramResult {
        let numbers = context.parallelize((0..100_u64).collect(), 4);
        let mut sum = 0;
        for round in 0..50 {
            sum = context.scope("round", |_| {
                assert!(!late.load(Ordering::Relaxed), "it need not run again");
                runs.fetch_add(u64::from(is_driver(context)), Ordering::Relaxed);
                Ok(numbers.map(move |n| n + sum).count()? + round)
            })?;
        }
        // The late one is of use.
        let total = context.scope("last", |_| numbers.map(move |n| n + sum).reduce(|one, other| one + other))?;
        assert_eq!(total, Some(4950 + 100 * 149));
        Ok(())
    };
    let stopped = |context: &Context| -> ProgramResult {
        let numbers = context.parallelize((0..100_u64).collect(), 4);
        let mut sum = 0;
        for round in 0..50 {
            sum = context.scope("round", |_| {
                runs.fetch_add(u64::from(is_driver(context)), Ordering::Relaxed);
                Ok(numbers.map(move |n| n + sum).count()? + round)
            })?;
        }
        Err("stopped here".into())
    };
    let job = Rehearsal::new(2, false);
    job.run(stopped).unwrap_err();
    assert_eq!(runs.load(Ordering::Relaxed), 50);
    late.store(true, Ordering::Relaxed);
    job.restarted().run(program).unwrap();
}

#[test]
fn scopes_of_different_threads_run_at_once() {
    // Each action has a task that waits for one of the other.
    static BOTH: Barrier = Barrier::new(2);
    let result = Rehearsal::new(2, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 1);
        let sum = |name: &str| {
            context.scope(name, |_| {
                let met = numbers.map_partitions(|records| {
                    BOTH.wait();
                    records
                });
                met.reduce(|one, other| one + other)
            })
        };
        let sums = std::thread::scope(|threads| {
            let (one, other) = (threads.spawn(|| sum("one")), threads.spawn(|| sum("other")));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!((sums.0?, sums.1?), (Some(45), Some(45)));
        assert_eq!(numbers.count()?, 10);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn two_scopes_of_one_name_do_not_run_at_once() {
    let context = local();
    let error = context.scope("a", |inner| {
        // Within it the name is free.
        assert_eq!(inner.scope("a", |_| Ok(1))?, 1);
        std::thread::scope(|threads| {
            let again = || {
                inner.scope("b", |_| {
                    std::thread::scope(|more| more.spawn(|| inner.scope("b", |_| Ok(2))).join().unwrap())
                })
            };
            threads.spawn(again).join().unwrap()
        })
    });
    let message = error.unwrap_err().to_string();
    let advice = "name them after what differs, as in `context.scope(&format!(\"part-{i}\"), ..)`";
    assert!(message.contains("scope \"b\" at scope_tests.rs:") && message.ends_with(advice), "{message}");
    assert_eq!(context.scope("a", |_| Ok(3)), Ok(3));
}

#[test]
fn the_driver_alone_refuses_a_second_scope_of_one_name_and_all_hear_so() {
    let seen = Mutex::new(Vec::new());
    let result = Rehearsal::new(1, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        let (first, within) = context.scope("first", |first| {
            std::thread::scope(|threads| {
                let (tell, inside) = channel();
                let (go_on, refused) = channel();
                let numbers = &numbers;
                let one = threads.spawn(move || {
                    first.scope("part", |_| {
                        tell.send(()).unwrap();
                        refused.recv().unwrap();
                        numbers.count()
                    })
                });
                inside.recv().unwrap();
                let other = threads.spawn(|| first.scope("part", |_| numbers.reduce(|one, other| one + other)));
                let other = other.join().unwrap();
                let is_typed = matches!(other, Err(ProgramError::ScopeOpen { .. }));
                seen.lock().unwrap().push((is_driver(context), is_typed, other.unwrap_err().to_string()));
                go_on.send(()).unwrap();
                Ok((one.join().unwrap()?, first.scope("part", |_| Ok(3))?))
            })
        })?;
        assert_eq!((first, within, numbers.count()?), (10, 3, 10));
        Ok(())
    });
    result.unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    let [(false, false, there), (true, true, here)] = &seen[..] else { panic!("{seen:?}") };
    assert!(there.ends_with(here) && there.contains("part") && there.contains("failed: "), "{there}");
}

#[test]
fn where_the_program_only_follows_its_driver_scopes_of_one_name_may_meet() {
    // In the driver they come one after the other, by what only the driver knows.
    let (first, second, meet) = (Barrier::new(2), Barrier::new(2), Barrier::new(2));
    let result = Rehearsal::new(1, false).run(|context| {
        let one = |context: &Context, tell: &Sender<()>| {
            context.scope("part", |scope| {
                tell.send(()).unwrap();
                first.wait();
                if !is_driver(scope) {
                    meet.wait();
                }
                scope.share(1)
            })
        };
        let other = |context: &Context| {
            context.scope("part", |scope| {
                if !is_driver(scope) {
                    meet.wait();
                }
                second.wait();
                scope.share(2)
            })
        };
        let entered = std::thread::scope(|threads| {
            let (tell, inside) = channel();
            let running = threads.spawn(move || one(context, &tell));
            if is_driver(context) {
                let one = running.join().unwrap();
                return (one, threads.spawn(|| other(context)).join().unwrap());
            }
            // The first of them is entered first here, too.
            inside.recv().unwrap();
            let other = threads.spawn(|| other(context)).join().unwrap();
            (running.join().unwrap(), other)
        });
        assert_eq!(entered, (Ok(1), Ok(2)));
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_thread_without_a_scope_does_not_count_in_one_whose_own_thread_is_within_another() {
    let context = local();
    let points = context.parallelize(vec![1, 2, 3], 2);
    let out_of_scope = |result: Result<u64, ProgramError>| {
        assert!(matches!(result, Err(ProgramError::OutOfScope { .. })), "{result:?}");
    };
    let within = context.scope("round", |inner| {
        std::thread::scope(|threads| {
            let outer =
                threads.spawn(|| (context.scope("a", |_| points.count()), points.count(), points.map(|n| n).count()));
            let (scope, action, dataset) = outer.join().unwrap();
            [scope, action, dataset].into_iter().for_each(out_of_scope);
            threads.spawn(|| inner.scope("a", |_| points.count())).join().unwrap()
        })
    });
    assert_eq!((within, points.count()), (Ok(3), Ok(3)));
    // Nor does that thread enter one while others may have been started within it.
    let late = std::thread::scope(|threads| {
        let other = context.clone();
        threads.spawn(move || other.scope("other", |_| Ok(1))).join().unwrap()
    });
    assert_eq!((late, context.scope("own", |_| Ok(2))), (Ok(1), Ok(2)));
}

#[test]
fn what_only_the_driver_computes_uses_no_cluster() {
    let context = local();
    let points = context.parallelize(vec![1, 2, 3], 2);
    let scope = context.once(|| context.scope("a", |_| Ok(1)).map_err(|error| error.to_string())).unwrap();
    assert!(scope.unwrap_err().contains("within a value that only the driver computes"));
    let made = context.once(|| points.map(|n| n).count().map_err(|error| error.to_string())).unwrap();
    assert!(made.unwrap_err().contains("within a value that only the driver computes"));
    assert_eq!(points.count(), Ok(3));
}

fn deeper(context: &Context) -> Result<(), ProgramError> {
    context.scope("deeper", deeper)
}

#[test]
fn what_was_made_in_a_scope_is_of_no_use_after_its_end() {
    let context = local();
    let escaped = Mutex::new(None);
    let kept = Mutex::new(None);
    let outside = context.parallelize(vec![1, 2, 3], 2);
    let count = context.scope("part", |scope| {
        let made = outside.map(|n| n + 1);
        *escaped.lock().unwrap() = Some((made.clone(), scope.clone()));
        made.count()
    });
    assert_eq!(count, Ok(3));
    let is_over = |error: ProgramError| {
        assert!(matches!(&error, ProgramError::ScopeEnded { .. }), "{error:?}");
        assert!(error.to_string().starts_with("scope \"part\" at scope_tests.rs:"), "{error}");
    };
    let (dataset, inner) = escaped.into_inner().unwrap().unwrap();
    is_over(dataset.map(|n| n + 1).count().unwrap_err());
    is_over(inner.share(1).unwrap_err());
    is_over(outside.union(&dataset).count().unwrap_err());
    assert_eq!(outside.count(), Ok(3));
    // Small or large, and whether it is known here or not.
    for len in [1, 10_000] {
        let value = context.scope("values", |scope| {
            *kept.lock().unwrap() = Some(scope.broadcast(vec![1; len])?);
            Ok(())
        });
        assert_eq!(value, Ok(()));
        let value = kept.lock().unwrap().take().unwrap();
        let error = outside.map(move |n| n + value[0]).count().unwrap_err().to_string();
        assert!(error.contains("scope \"values\" at scope_tests.rs:") && error.contains(" has ended, and"), "{error}");
    }
    let error = context.scope(&"long ".repeat(2_000), |_| Err::<(), _>(inner.share(1).unwrap_err())).unwrap_err();
    assert!(error.to_string().len() < 500, "{error}");
    let error = deeper(&context).unwrap_err().to_string();
    assert!(error.contains("at most 64 deep"), "{error}");
}

#[test]
fn a_body_that_tries_again_and_again_is_left_when_its_scope_has_ended_in_the_driver() {
    let (inside, past) = (Barrier::new(2), Barrier::new(2));
    let tries = AtomicU64::new(0);
    let result = Rehearsal::new(1, false).run(|context| {
        let wait = || {
            inside.wait();
            // The worker goes on when all is over.
            if !is_driver(context) {
                past.wait();
            }
        };
        let again = || assert!(tries.fetch_add(1, Ordering::Relaxed) < 1_000, "it goes on for ever");
        let acts = context.scope("acts", |scope| {
            wait();
            while !is_driver(scope) && scope.share(1).is_err() {
                again();
            }
            Ok(1)
        });
        if is_driver(context) {
            past.wait();
        }
        // An outer one has ended, and the inner one with it.
        let nests = context.scope("nests", |scope| {
            wait();
            while !is_driver(scope) && scope.scope("inner", |_| Ok(())).is_err() {
                again();
            }
            Ok(2)
        });
        if is_driver(context) {
            past.wait();
        }
        let deep = context.scope("deep", |scope| {
            scope.scope("inner", |inner| {
                wait();
                while !is_driver(scope) && inner.share(1).is_err() {
                    again();
                }
                Ok(())
            })?;
            Ok(3)
        });
        if is_driver(context) {
            past.wait();
        }
        assert_eq!((acts, nests, deep), (Ok(1), Ok(2), Ok(3)));
        assert_eq!(context.parallelize(vec![1, 2, 3], 2).count()?, 3);
        Ok(())
    });
    result.unwrap();
    assert_eq!(tries.into_inner(), 0);
}

#[test]
fn an_error_of_a_scope_is_the_same_everywhere_and_the_program_may_go_on() {
    let runs = AtomicU64::new(0);
    let seen = Mutex::new(Vec::new());
    let result = Rehearsal::new(2, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        let failed = context.scope("fails", |_| {
            // Only in the driver, or only in a worker: the driver's counts.
            let first = numbers.count()?;
            match (is_driver(context), runs.fetch_add(1, Ordering::Relaxed) % 2) {
                (true, _) => Err(ProgramError::Argument { operation: "mine".to_owned(), message: "no".to_owned() }),
                (false, 0) => Ok(first),
                (false, _) => Err(ProgramError::Argument { operation: "other".to_owned(), message: "no".to_owned() }),
            }
        });
        seen.lock().unwrap().push(failed.unwrap_err().to_string());
        assert_eq!(numbers.count()?, 10);
        Ok(())
    });
    result.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|error| error.ends_with("failed: mine: no") && *error == seen[0]), "{seen:?}");
}

#[test]
fn a_panic_in_a_scope_is_its_error() {
    let context = local();
    let error = context.scope("falls", |_| -> Result<(), ProgramError> { panic!("over") }).unwrap_err();
    assert!(error.to_string().ends_with("failed: it panicked: over"), "{error}");
    assert_eq!(context.scope("falls", |_| Ok(1)), Ok(1), "its name is free again");
}

#[test]
fn a_worker_whose_scope_does_something_else_is_named() {
    let result = Rehearsal::new(1, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        let runs = is_driver(context);
        context.scope("part", |_| if runs { numbers.count() } else { Ok(0) })?;
        Ok(())
    });
    let error = result.unwrap_err();
    assert!(error.contains("the program ended in this worker before action-"), "{error}");
}

#[test]
fn a_scope_that_returns_too_much_has_failed_in_every_process() {
    let job = Rehearsal::new(1, false);
    let result = job.run(|context| {
        let returned = context.scope("large", |context| {
            context.parallelize(vec![1_u8], 1).count()?;
            Ok(vec![7_u8; 17 << 20])
        });
        let Err(ProgramError::Scope { scope, message }) = returned else { panic!("it is refused") };
        assert!(scope.contains("large") && message.contains("at most 15728640"), "{scope} {message}");
        let failed = context.scope("wordy", |_| -> Result<(), ProgramError> {
            let message = "x".repeat(17 << 20);
            Err(ProgramError::Argument { operation: "none".to_owned(), message })
        });
        let Err(ProgramError::Scope { message, .. }) = failed else { panic!("it has failed") };
        assert!(message.len() < 10_000, "{} bytes", message.len());
        let panicked = context.scope("loud", |_| -> Result<(), ProgramError> { panic!("{}", "x".repeat(17 << 20)) });
        let Err(ProgramError::Scope { message, .. }) = panicked else { panic!("it has panicked") };
        assert!(message.len() < 10_000, "{} bytes", message.len());
        // The workers are behind all of them, too.
        assert_eq!(context.parallelize(vec![1_u8, 2], 2).count()?, 2);
        Ok(())
    });
    result.unwrap();
}

/// What is said of a program that does something else in its worker, whether it is checked or not.
fn differs(program: impl Fn(&Context) -> ProgramResult + Sync, expected: &[&str]) {
    for checked in [false, true] {
        let error = Rehearsal::new(1, checked).run(&program).unwrap_err();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_worker_that_enters_other_scopes_is_named() {
    let named = |context: &Context, name: &str| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        context.scope(name, |_| numbers.count())
    };
    // As in a loop over a `HashMap`.
    let ordered = |context: &Context| {
        let names = if is_driver(context) { ["one", "other"] } else { ["other", "one"] };
        names.iter().try_for_each(|name| named(context, name).map(drop))?;
        Ok(())
    };
    differs(
        ordered,
        &["in scope \"one\" at scope_tests.rs:", " in the driver, and to count at", "in scope \"other\" at"],
    );
    // As with the time in a name.
    let timed = |context: &Context| {
        named(context, if is_driver(context) { "1" } else { "2" })?;
        Ok(())
    };
    differs(timed, &["in scope \"1\" at scope_tests.rs:", " in the driver, and to count at", "in scope \"2\" at"]);
}

#[test]
fn a_worker_that_enters_fewer_or_more_scopes_is_named() {
    let only = |entered: bool, context: &Context| -> ProgramResult {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        if entered {
            context.scope("only", |_| numbers.map(|n| n + 1).reduce(|one, other| one + other))?;
        }
        numbers.count()?;
        Ok(())
    };
    differs(
        |context| only(is_driver(context), context),
        &["has come to reduce at", "in scope \"only\" at", "in the driver, and to count at"],
    );
    differs(
        |context| only(!is_driver(context), context),
        &["has come to count at", "in the driver, and to reduce at", "in scope \"only\" at"],
    );
}

#[test]
fn a_worker_whose_scope_has_no_action_in_it_is_named() {
    let only = |context: &Context| -> ProgramResult {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        if !is_driver(context) {
            context.scope("only", |_| Ok(1))?;
        }
        numbers.count()?;
        Ok(())
    };
    differs(only, &["has come to count at", "in the driver, and to the end, in scope \"only\" at"]);
}

#[test]
fn a_worker_may_stand_elsewhere_while_another_thread_is_on_its_way() {
    let result = Rehearsal::new(1, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        let own = || numbers.count();
        let (late, here) = std::thread::scope(|threads| {
            let late = threads.spawn(|| {
                // A worker does not enter it before the task of the driver waits for that.
                context.backend().wait_for_need()?;
                context.scope("late", |_| numbers.count())
            });
            if is_driver(context) {
                return (late.join().unwrap(), own());
            }
            // Here the program's own thread is further than in the driver.
            let here = own();
            (late.join().unwrap(), here)
        });
        assert_eq!((late?, here?), (10, 10));
        Ok(())
    });
    result.unwrap();
}

#[test]
fn when_two_threads_were_in_one_scope_neither_gets_a_result_nor_does_a_later_call() {
    let context = local();
    let points = context.parallelize(vec![1, 2, 3], 1);
    let (begun, go_on) = (Barrier::new(2), Barrier::new(2));
    let is_concurrent = |result: Result<u64, ProgramError>| {
        assert!(matches!(result, Err(ProgramError::Concurrent { .. })), "{result:?}");
    };
    let collided = context.scope("part", |scope| {
        let (first, second) = std::thread::scope(|threads| {
            let first = threads.spawn(|| {
                scope.once(|| {
                    begun.wait();
                    go_on.wait();
                    1_u64
                })
            });
            begun.wait();
            let second = points.count();
            go_on.wait();
            (first.join().unwrap(), second)
        });
        for result in [first, second, points.count(), scope.share(1_u64)] {
            is_concurrent(result);
        }
        Ok(1)
    });
    assert_eq!((collided, points.count()), (Ok(1), Ok(3)), "other scopes are as ever");
}
