//! The compiling program's side: reads one component from standard input, writes
//! its compiled code to standard output, and ends.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use super::protocol::{Answer, MAX_TEXT, Request};
use crate::wasm::engine::EngineMark;
use crate::wasm::outline::MAX_COMPONENT;
use crate::wasm::text::printable;

/// How much lower its priority is than the host's: the lowest there is.
const NICENESS: i32 = 19;

/// Compiles one component for a host that was built with
/// [`Compiler::Program`](super::Compiler::Program), and returns what the process
/// is to exit with.
///
/// For a program that embeds the library: call it, and nothing else, when started
/// with the arguments that were given there. It sets limits on the whole process
/// that cannot be raised again, and uses standard input, output and error.
pub fn run_compiler() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut head = [0; Request::SIZE];
    stdin.read_exact(&mut head)?;
    let request = Request::from_bytes(&head)
        .filter(|request| request.length <= MAX_COMPONENT)
        .ok_or_else(|| io::Error::other("this is not how a host asks for a component's code"))?;
    limit(&request);

    let engine = super::super::engine::new_engine().map_err(io::Error::other)?;
    if EngineMark::of(&engine) != request.mark {
        return answer(&Answer::OtherVersion(env!("CARGO_PKG_VERSION").to_owned()));
    }
    let mut wasm = vec![0; request.length as usize];
    stdin.read_exact(&mut wasm)?;
    drop(stdin);
    end_with_host()?;
    answer(&match engine.precompile_component(&wasm) {
        Ok(code) => Answer::Code(code),
        Err(error) => Answer::Refused(printable(&format!("{error:#}"), MAX_TEXT)),
    })
}

fn answer(answer: &Answer) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&answer.head())?;
    stdout.write_all(answer.body())?;
    stdout.flush()
}

/// Holds this process to what it may use. Where the system does not know a limit,
/// the host's own time limit is left.
fn limit(request: &Request) {
    // If the machine runs out of memory, this is to end, not the host.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = nice(NICENESS);
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let limits = [
        // What it writes to, and not address space, of which each thread takes
        // much and uses little.
        (Resource::Data, request.memory),
        (Resource::Cpu, request.seconds.saturating_mul(processors)),
        // It opens and writes no files, and a dump of it is of no use.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    for (resource, limit) in limits {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        if let Err(error) = setrlimit(resource, limit) {
            eprintln!("a limit cannot be set: {error}");
        }
    }
}

/// Ends this process when the host has: then standard input ends. A thread for
/// this, and not the kernel's `PDEATHSIG`, which goes by threads of the host's.
fn end_with_host() -> io::Result<()> {
    let watch = || {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    };
    std::thread::Builder::new().spawn(watch)?;
    Ok(())
}
