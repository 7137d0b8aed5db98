//! The `situ` executable, for the tests.

fn main() -> std::process::ExitCode {
    situ::main()
}
