//! Compiling: in a program that is started for it and held to its limits, with
//! components made to be slow to compile, and compilers that go wrong.
//!
//! Those are shell scripts here: what the host does with a compiler that hangs,
//! crashes or lies cannot be tried with one that does not.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use backhaul::AsyncBackend;
use backhaul::wasm::{
    COMPILE_MEMORY, CompileError, Compiler, Component, LoadError, WasmBackend, WasmEngine,
};
use backhaul_tests::host::{Workspace, program};
use backhaul_tests::{PATIENCE, components, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::guest::{GENEROUS, Out, events, ids, within};
use crate::memory::MIB;
use crate::slow_components::{self, KINDS};

fn engine_with(compiler: Compiler) -> WasmEngine {
    let engine = WasmEngine::builder().cache(None).compiler(compiler);
    engine.build().expect("an engine")
}

fn compiler(memory: u64) -> Compiler {
    let mut compiler = Compiler::this_program(["compile"]).unwrap();
    if let Compiler::Program {
        program: file,
        memory: limit,
        ..
    } = &mut compiler
    {
        *file = program();
        *limit = memory;
    }
    compiler
}

/// A compiler of one's own making.
fn script(text: &str) -> Compiler {
    let mut compiler = Compiler::this_program(["-c", text]).unwrap();
    if let Compiler::Program { program, .. } = &mut compiler {
        *program = "/bin/sh".into();
    }
    compiler
}

fn good() -> Vec<u8> {
    std::fs::read(components::test_guest("record_blocking")).expect("the guest")
}

/// Takes some seconds to compile, and some hundred megabytes.
fn slow() -> Vec<u8> {
    slow_components::wasm(&slow_components::values(2000))
}

async fn assert_works(component: Component) {
    let out = Out::new();
    let started = WasmBackend::start(component, "test", out.grants(), within(GENEROUS)).await;
    started.unwrap().publish(&events(2)).await.unwrap();
    assert_eq!(out.published(), ids(2));
}

async fn refused(compiler: Compiler, wasm: Vec<u8>, limit: Duration) -> LoadError {
    let loaded = engine_with(compiler).load_within(wasm, limit).await;
    loaded.expect_err("it is not loaded")
}

#[tokio::test]
async fn a_component_compiled_in_another_program_runs_here() {
    let cache = TempDir::new().unwrap();
    let engine = WasmEngine::builder()
        .cache(Some(cache.path().to_owned()))
        .compiler(compiler(COMPILE_MEMORY))
        .build()
        .unwrap();
    let component = engine.load(good()).await.unwrap();
    assert!(component.compiled_in().is_some());
    assert_works(component).await;
    let again = engine.load(good()).await.unwrap();
    assert_eq!(again.compiled_in(), None, "its code was kept");
    assert_works(again).await;
}

#[tokio::test]
async fn what_does_not_compile_is_refused_with_the_same_words_by_either_compiler() {
    let mut damaged = good();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let here = refused(Compiler::InProcess, damaged.clone(), PATIENCE).await;
    let there = refused(compiler(COMPILE_MEMORY), damaged, PATIENCE).await;
    assert_eq!(here.to_string(), there.to_string());
    assert!(matches!(there, LoadError::NotAComponent(_)), "{there}");
}

#[tokio::test]
async fn compiling_is_stopped_at_its_time_limit_wherever_it_is_done() {
    let limit = Duration::from_millis(500);
    for compiler in [Compiler::InProcess, compiler(COMPILE_MEMORY)] {
        let engine = engine_with(compiler);
        let error = engine.load_within(slow(), limit).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "compiling it was not done after 500ms and was stopped; use a smaller build of it, or \
             raise `compile_timeout` under [limits]"
        );
        assert_works(engine.load(good()).await.unwrap()).await;
    }
}

#[tokio::test]
async fn compiling_is_stopped_at_its_memory_limit() {
    let engine = engine_with(compiler(100 * MIB));
    let error = engine.load_within(slow(), PATIENCE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "compiling it takes more than 100 MiB of memory and was stopped; use a smaller build of it"
    );
    assert_works(engine.load(good()).await.unwrap()).await;
}

/// What each took in full is in the docs; here it is enough that nothing goes on
/// for longer than it may.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_made_to_be_slow_takes_more_than_its_limits() {
    let limit = Duration::from_secs(2);
    let sizes = [20_000, 400, 3000, 900, 60, 20_000];
    for ((kind, make), size) in KINDS.into_iter().zip(sizes) {
        let wasm = slow_components::wasm(&make(size));
        let engine = engine_with(compiler(300 * MIB));
        let started = Instant::now();
        let loaded = engine.load_within(wasm, limit).await;
        let took = started.elapsed();
        assert!(took < limit + Duration::from_secs(3), "{kind}: {took:?}");
        match loaded {
            Ok(_) => {}
            Err(LoadError::Compile(CompileError::Timeout(_) | CompileError::Memory(_))) => {}
            Err(other) => panic!("{kind}: {other}"),
        }
    }
}

#[tokio::test]
async fn components_within_components_without_end_are_refused_and_crash_nothing() {
    for (depth, problem) in [
        (10, "it exports nothing"),
        (1000, "it exports nothing"),
        (100_000, "compiling it takes more than 200 MiB of memory"),
    ] {
        let wasm = slow_components::nested(depth);
        let error = refused(compiler(200 * MIB), wasm, PATIENCE).await;
        assert!(error.to_string().contains(problem), "{depth}: {error}");
    }
}

/// A script that tells its process id and then hangs.
fn hanging(folder: &TempDir) -> (Compiler, PathBuf) {
    let file = folder.path().join("pid");
    let script = script(&format!(
        "echo $$ > {0}.new && mv {0}.new {0} && exec sleep 1000",
        file.display()
    ));
    (script, file)
}

fn process_in(file: &Path) -> Option<PathBuf> {
    let pid = std::fs::read_to_string(file).ok()?;
    Some(Path::new("/proc").join(pid.trim()))
}

/// A process that ended and was not waited for is still there, as a zombie.
fn wait_until_gone(process: &Path) {
    wait_for("the compiler to be gone", || {
        let status = std::fs::read_to_string(process.join("status"));
        status.is_err().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_is_ended_and_buried_at_the_time_limit() {
    let folder = TempDir::new().unwrap();
    let (compiler, pid) = hanging(&folder);
    let error = refused(compiler, good(), Duration::from_secs(1)).await;
    assert!(
        matches!(error, LoadError::Compile(CompileError::Timeout(_))),
        "{error}"
    );
    wait_until_gone(&process_in(&pid).expect("it ran"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_is_ended_and_buried_when_nobody_waits_for_it_any_more() {
    let folder = TempDir::new().unwrap();
    let (compiler, pid) = hanging(&folder);
    let engine = engine_with(compiler);
    let load = tokio::spawn(async move { engine.load(good()).await });
    let process = wait_for("the compiler to run", || process_in(&pid));
    load.abort();
    wait_until_gone(&process);
}

#[tokio::test]
async fn a_compiler_that_goes_wrong_harms_nothing_and_is_told_of() {
    let version = r"printf 'backhau\001\002\005\0\0\0\0\0\0\0009.9.9'";
    let huge = r"printf 'backhau\001\000\0\0\0\0\0\1\0\0'";
    let short = r"printf 'backhau\001\000\100\0\0\0\0\0\0\0half'";
    let flood = "yes >&2 & flood=$!; sleep 0.2; kill $flood; echo garbage";
    let cases = [
        ("kill -SEGV $$", "the compiler ended on it, with signal: 11"),
        ("echo oh >&2; kill -ABRT $$", "signal: 6 (SIGABRT)"),
        ("echo oh >&2; kill -ABRT $$", ": oh; the host is not harmed"),
        ("kill -KILL $$", "killed from outside (signal 9)"),
        (
            "exit 101",
            "the compiler ended on it, with exit status: 101: without a word",
        ),
        (
            "echo nonsense >&2; exit 2",
            "the compiler /bin/sh ended with exit status: 2: nonsense",
        ),
        (
            "exit 0",
            "the program /bin/sh does not answer as a compiler",
        ),
        (
            "echo hello, world",
            "the program /bin/sh does not answer as a compiler",
        ),
        (short, "the program /bin/sh does not answer as a compiler"),
        (flood, "the program /bin/sh does not answer as a compiler"),
        (
            version,
            "the compiler /bin/sh is of another version, 9.9.9; start the host anew",
        ),
        (
            huge,
            "its compiled code has 1099511627776 bytes; the largest that is loaded has 1073741824",
        ),
    ];
    for (text, problem) in cases {
        let error = refused(script(text), good(), PATIENCE).await.to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[tokio::test]
async fn code_that_is_none_is_not_run() {
    let text = r"printf 'backhau\001\000\004\0\0\0\0\0\0\0code'";
    let error = refused(script(text), good(), PATIENCE).await;
    assert!(matches!(error, LoadError::Engine(_)), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut missing = script("");
    if let Compiler::Program { program, .. } = &mut missing {
        *program = "/nonexistent/backhaul".into();
    }
    let error = refused(missing, good(), PATIENCE).await.to_string();
    assert!(
        error.contains("the compiler /nonexistent/backhaul cannot be started: No such file"),
        "{error}"
    );
}

/// `backhaul check` of a slow component, and the process that compiles it.
fn check_slow(workspace: &Workspace) -> (Child, PathBuf) {
    let file = workspace.path().join("slow.wasm");
    std::fs::write(&file, slow_components::wasm(&slow_components::values(4000))).unwrap();
    let mut command = workspace.command(&["check", "slow.wasm"]);
    command.env("XDG_CACHE_HOME", workspace.path().join("cache"));
    command.env("SECRET", "hunter2");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("the program starts");
    let tasks = PathBuf::from(format!("/proc/{}/task", child.id()));
    let compiler = wait_for("a compiler", || {
        // A child is that of the thread that made it.
        let children = |task: PathBuf| std::fs::read_to_string(task.join("children")).ok();
        let tasks = std::fs::read_dir(&tasks).ok()?;
        let of_all: String = tasks
            .flatten()
            .filter_map(|task| children(task.path()))
            .collect();
        let process = Path::new("/proc").join(of_all.split_whitespace().next()?);
        // Once it is in the midst of compiling.
        let threads = std::fs::read_dir(process.join("task")).ok()?.count();
        (threads > 2).then_some(process)
    });
    (child, compiler)
}

/// By number and name.
fn open_files(process: &Path) -> Vec<(String, PathBuf)> {
    let files = std::fs::read_dir(process.join("fd")).unwrap().flatten();
    let open = |file: std::fs::DirEntry| {
        let target = std::fs::read_link(file.path()).ok()?;
        Some((file.file_name().into_string().unwrap(), target))
    };
    let mut files: Vec<_> = files.filter_map(open).collect();
    files.sort();
    files
}

#[test]
fn the_program_compiles_apart_with_the_lowest_priority_limits_and_nothing_of_its_own() {
    let workspace = Workspace::new();
    let (mut check, compiler) = check_slow(&workspace);
    let read = |file| std::fs::read_to_string(compiler.join(file)).unwrap();
    assert_eq!(read("environ"), "");
    assert_eq!(read("cmdline"), "/proc/self/exe\0compile\0");
    let nice = read("stat")
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(16)
        .unwrap()
        .to_owned();
    assert_eq!(nice, "19");
    assert_eq!(read("oom_score_adj"), "1000\n");
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_default();
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(limit("Max data size"), "4294967296 4294967296");
    assert_eq!(limit("Max file size"), "0 0");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_ne!(limit("Max cpu time"), "unlimited unlimited");
    let mut files = open_files(&compiler);
    // This test may have been started with some that go down to all its children.
    let inherited = open_files(Path::new("/proc/self"));
    files.retain(|file| !inherited.contains(file));
    let numbers: Vec<&str> = files.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{files:?}");
    check.kill().unwrap();
    check.wait().unwrap();
}

#[test]
fn a_compiler_ends_when_its_host_does_however_that_ends() {
    for signal in [Signal::KILL, Signal::INT] {
        let workspace = Workspace::new();
        let (mut check, compiler) = check_slow(&workspace);
        let pid = Pid::from_child(&check);
        kill_process(pid, signal).unwrap();
        check.wait().unwrap();
        wait_until_gone(&compiler);
    }
}

/// With the program's own compiler.
#[test]
fn a_component_that_is_slow_to_compile_is_refused_and_the_others_serve() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let manifest = "[limits]\ncompile_timeout = \"500ms\"";
    workspace.add_bytes("slow", &slow(), manifest);
    let host = workspace.serve();
    let log = host.log();
    assert!(
        log.contains(
            "NOT LOADED plugins/slow.wasm: compiling it was not done after 500ms and was stopped"
        ),
        "{log}"
    );
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    workspace.wait_for_file_lines(1);
}
