//! Who compiles components: this process, or a program started for each.
//!
//! Compiling is the one thing done with a component before it is in its sandbox,
//! and what it takes depends on the component. In a program of its own it can be
//! stopped, be held to an amount of memory, give all of it back, have a low
//! priority, and crash. This file is the host's side; `program` is the other, and
//! `protocol` is what they say to each other.
//!
//! The code that comes back is run as it is. It is trusted because the program
//! that makes it is: it is to be this very program, of the same version.

mod program;
mod protocol;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::LoadError;
use super::engine::EngineMark;
use super::text::printable;
use protocol::{Answer, Request};

pub use program::run_compiler;

/// The most memory a compiling program may take, unless
/// [`Compiler::Program`] says otherwise.
pub const COMPILE_MEMORY: u64 = 4 << 30;

/// The largest compiled code that is taken, in bytes. It is two to five times as
/// large as the component, and lies in the host's memory as long as the plugin
/// is loaded.
const MAX_CODE: u64 = 1 << 30;

/// How much of what a compiling program writes to standard error is kept.
const MAX_STDERR: u64 = 4096;

/// Who compiles components.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Compiler {
    /// This process, on threads for blocking work. What runs over the time limit
    /// fails, but its thread goes on until it is done; and a component the
    /// compiler crashes on takes the process with it.
    #[default]
    InProcess,

    /// A program, started for each component and ended at its limits. It must
    /// call [`run_compiler`] and be of the same version as this one. It gets no
    /// environment, and no files but standard input, output and error.
    Program {
        /// The program, as an absolute path.
        program: PathBuf,
        /// The arguments with which it calls [`run_compiler`].
        arguments: Vec<OsString>,
        /// The most memory it may take, in bytes.
        memory: u64,
    },
}

impl Compiler {
    /// This very program, started with `arguments` once more.
    ///
    /// On Linux it is the file that is running, even if the one on disk has been
    /// replaced since.
    ///
    /// # Errors
    ///
    /// If the system does not tell where the program is.
    pub fn this_program<A>(arguments: A) -> std::io::Result<Compiler>
    where
        A: IntoIterator<Item: Into<OsString>>,
    {
        let program = match cfg!(target_os = "linux") {
            true => "/proc/self/exe".into(),
            false => std::env::current_exe()?,
        };
        Ok(Compiler::Program {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            memory: COMPILE_MEMORY,
        })
    }
}

/// Why a component could not be compiled, though it may be a sound one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It took too long.
    #[error(
        "compiling it was not done after {0:?} and was stopped; use a smaller build of it, \
         or raise `compile_timeout` under [limits]"
    )]
    Timeout(Duration),

    /// It took too much memory.
    #[error(
        "compiling it takes more than {} MiB of memory and was stopped; use a smaller build of it",
        .0 >> 20
    )]
    Memory(u64),

    /// The compiled code is larger than what is taken.
    #[error(
        "its compiled code has {0} bytes; the largest that is loaded has {MAX_CODE}; use a smaller \
         build of it"
    )]
    TooLarge(u64),

    /// The compiler ended without an answer.
    #[error(
        "the compiler ended on it, {0}; the host is not harmed, and the component is not loaded"
    )]
    Crashed(String),
}

/// Compiles in another program; dropping the future ends it.
pub(super) async fn compile_in_program(
    compiler: (PathBuf, Vec<OsString>, u64),
    mark: EngineMark,
    wasm: Bytes,
    limit: Duration,
) -> Result<Vec<u8>, LoadError> {
    let (program, arguments, memory) = compiler;
    let engine = |problem: String| LoadError::Engine(problem);
    let mut child = Command::new(&program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C is for the host, which ends its compilers itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            engine(format!(
                "the compiler {} cannot be started: {error}",
                program.display()
            ))
        })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(engine(
            "the compiler has no standard input or output".into(),
        ));
    };
    let request = Request {
        mark,
        memory,
        seconds: limit.as_secs() + 1,
        length: wasm.len() as u64,
    };
    let talk = async {
        let (_stdin, answer, said) = tokio::join!(
            send(stdin, &request, &wasm),
            receive(stdout),
            listen(stderr)
        );
        (answer, said, child.wait().await)
    };
    let Ok((answer, said, ended)) = tokio::time::timeout(limit, talk).await else {
        return Err(CompileError::Timeout(limit).into());
    };
    let ended = ended.map_err(|error| engine(format!("the compiler was lost: {error}")))?;
    match answer {
        Ok(Answer::Code(code)) if ended.success() => Ok(code),
        Ok(Answer::TooLarge(length)) => Err(CompileError::TooLarge(length).into()),
        Ok(Answer::Refused(reason)) => Err(does_not_compile(&reason)),
        Ok(Answer::OtherVersion(version)) => Err(engine(format!(
            "the compiler {} is of another version, {}; start the host anew",
            program.display(),
            printable(&version, 64)
        ))),
        _ if ended.success() => Err(engine(format!(
            "the program {} does not answer as a compiler",
            program.display()
        ))),
        _ => match cause_of_death(ended, &said, memory, limit) {
            Some(cause) => Err(cause.into()),
            None => Err(engine(format!(
                "the compiler {} ended with {ended}: {}",
                program.display(),
                first_line(&said)
            ))),
        },
    }
}

/// Gives the compiler its work. What is returned is to be kept: the compiler
/// ends when its standard input does. If it does not read to the end, its answer
/// says why.
async fn send(mut stdin: ChildStdin, request: &Request, wasm: &[u8]) -> ChildStdin {
    let sent = async {
        stdin.write_all(&request.to_bytes()).await?;
        stdin.write_all(wasm).await?;
        stdin.flush().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "the compiler does not read");
    }
    stdin
}

async fn receive(mut stdout: ChildStdout) -> std::io::Result<Answer> {
    Answer::read(&mut stdout, MAX_CODE).await
}

/// The first of what the compiler writes to standard error. The rest is read,
/// too: a full pipe would hold it up.
async fn listen(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    let first: &mut (dyn AsyncRead + Send + Unpin) = &mut stderr;
    let _ = first.take(MAX_STDERR).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

/// Why Wasmtime does not compile a component.
pub(super) fn does_not_compile(reason: &str) -> LoadError {
    LoadError::NotAComponent(format!(
        "it starts like a component but does not compile; was it copied whole? {}",
        printable(reason, protocol::MAX_TEXT)
    ))
}

/// What a compiler died of that gave no answer; `None` if it ended by itself.
fn cause_of_death(
    ended: ExitStatus,
    said: &str,
    memory: u64,
    limit: Duration,
) -> Option<CompileError> {
    /// Of Linux and macOS alike.
    const SIGABRT: i32 = 6;
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    /// The exit code of a Rust program that panicked.
    const PANIC: i32 = 101;
    // The words are those of Rust's standard library.
    let no_memory = said.contains("memory allocation of");
    match ended.signal() {
        Some(SIGABRT) if no_memory => Some(CompileError::Memory(memory)),
        Some(SIGXCPU) => Some(CompileError::Timeout(limit)),
        Some(SIGKILL) => Some(CompileError::Crashed(
            "killed from outside (signal 9), as systems do that run out of memory".to_owned(),
        )),
        None if ended.code() != Some(PANIC) => None,
        _ => Some(CompileError::Crashed(format!(
            "with {ended}: {}",
            first_line(said)
        ))),
    }
}

fn first_line(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    printable(lines.next().unwrap_or("without a word"), 300)
}
