//! The `backhaul` program. Everything is in the library, in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    backhaul::cli::main()
}
