//! The `situ` executable; all of it is in the library of the same name.

fn main() -> std::process::ExitCode {
    situ::main()
}
