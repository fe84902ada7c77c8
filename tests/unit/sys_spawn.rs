//! Children that share this process's memory: what they may not change, and what ends them alone.
use opm::process::journal_format::{SIGNATURE_BYTES, Signature};
use opm::process::{Exit, Identity, Namespace};
use opm::sys::attributes::{Means, own};
use opm::sys::block::{Block, Blocks};
use opm::sys::exec_pipe::ExecPipe;
use opm::sys::spawn::*;
use opm::sys::{
    Child, Errno, Features, Launch, Orders, Plan, Reach, Result, Stage, Streams, Strings, limits,
    pidfd, raw,
};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::process::WaitId;
use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

fn wait(pidfd: &OwnedFd) -> Exit {
    loop {
        if let Some(exit) = pidfd::wait(WaitId::PidFd(pidfd.as_fd()), true).unwrap() {
            return exit;
        }
        std::thread::yield_now();
    }
}

fn block() -> Block {
    Block::map(0).unwrap()
}

/// Waits for a byte that nobody writes.
extern "C" fn wait_for_nothing(pipe: *mut c_int) -> ! {
    // SAFETY: it lies in the block.
    let _byte = raw::read(unsafe { *pipe }, &mut [0]);
    raw::exit(7)
}

/// A child that waits in a block.
fn waiting(block: &mut Block) -> OwnedFd {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    // The child has copies of both ends.
    let argument = block.put(reader.as_raw_fd()).unwrap();
    // SAFETY: the entry keeps the rules of `raw`, and its argument lies in the block.
    unsafe { clone(block, wait_for_nothing, argument, true) }.unwrap().1
}

#[test]
fn a_block_is_free_once_its_child_has_ended() {
    let mut block = block();
    let pidfd = waiting(&mut block);
    assert!(!block.is_free());
    pidfd::signal(&pidfd, libc::SIGKILL, Reach::Process).unwrap();
    assert_eq!(wait(&pidfd), Exit::Signal(libc::SIGKILL));
    assert!(block.is_free());
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn no_handler_of_ours_runs_in_a_child() {
    // SAFETY: sigaction is a plain C struct, for which zero is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(c_int) as libc::sighandler_t;
    // SAFETY: the handler changes an atomic.
    unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
    let mut block = block();
    let pidfd = waiting(&mut block);
    pidfd::signal(&pidfd, libc::SIGUSR2, Reach::Process).unwrap();
    assert_eq!(wait(&pidfd), Exit::Signal(libc::SIGUSR2));
    assert_eq!(HANDLED.load(Ordering::Relaxed), 0);
}

/// Uses up its stack.
extern "C" fn overflow(depth: *mut u64) -> ! {
    let mut room = [0u8; 1024];
    // SAFETY: it lies in the block.
    unsafe { *depth += 1 };
    std::hint::black_box(&mut room);
    let next: raw::Entry<u64> = std::hint::black_box(overflow);
    next(depth)
}

#[test]
fn a_stack_that_overflows_ends_its_child_alone() {
    let mut block = block();
    let depth = block.put(0u64).unwrap();
    // SAFETY: the entry makes no call, and its argument lies in the block.
    let (_, pidfd) = unsafe { clone(&block, overflow, depth, true) }.unwrap();
    assert_eq!(wait(&pidfd), Exit::Signal(libc::SIGSEGV));
    // SAFETY: the child is gone.
    assert!((20..70).contains(&unsafe { *depth }));
    assert!(block.is_free());
}

/// A home of which only the journal and the logs are there.
struct Rig {
    dir: PathBuf,
    journal: OwnedFd,
    lock: OwnedFd,
    means: Means,
    blocks: Blocks,
}

impl Rig {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("opm-spawn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name| OwnedFd::from(std::fs::File::create(dir.join(name)).unwrap());
        let (journal, lock) = (file("journal"), file("lock"));
        Self { dir, journal, lock, means: Means::read(None), blocks: Blocks::default() }
    }

    fn spawn(
        &mut self,
        command: &[&str],
        variables: &[&str],
        without: &str,
    ) -> Result<Child<OwnedFd, ExecPipe>> {
        let path = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let mut env = Strings::default();
        variables.iter().for_each(|variable| env.push(&[variable]));
        let unknown = Identity::default();
        let (argv, attributes) = (command.iter().map(|word| (*word).to_owned()), own());
        let plan = Plan {
            signature: Signature {
                generation: 1,
                leader: unknown,
                parent: unknown,
                namespace: Namespace::default(),
            },
            signature_offset: Some(0),
            limit_mark: None,
            argv: &argv.collect::<Vec<_>>(),
            env,
            path: "/bin",
            cwd: "/",
            attributes: &attributes,
            orders: &Orders::default(),
            streams: Streams::Files,
            living: None,
            log_out: &path("out"),
            log_error: &path("error"),
            descriptors: &[],
        };
        let features = Features { time_namespace: false, ..Features::ALL }.without(without);
        let parent = Parent {
            journal: &self.journal,
            held: [self.journal.as_raw_fd(), self.lock.as_raw_fd()],
            listener: -1,
            means: &self.means,
            features,
        };
        spawn(&plan, &mut self.blocks, parent)
    }

    fn signature(&self) -> Option<Signature> {
        let mut bytes = [0; SIGNATURE_BYTES];
        std::os::unix::fs::FileExt::read_at(
            &std::fs::File::open(self.dir.join("journal")).unwrap(),
            &mut bytes,
            0,
        )
        .unwrap();
        Signature::decode(&bytes)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn decided(launch: &ExecPipe) -> Launch {
    loop {
        match launch.look() {
            Launch::Pending => std::thread::yield_now(),
            decided => return decided,
        }
    }
}

const TIERS: [&str; 3] = ["", "shared-memory", "shared-memory,clone3"];

#[test]
fn an_environment_of_one_byte_to_two_megabytes_arrives_whole() {
    let mut rig = Rig::new("env");
    for without in TIERS {
        for (count, length) in [(1, 1), (3, 30_000), (18, 100_000)] {
            let variables = vec![format!("A={}", "x".repeat(length)); count];
            let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
            std::fs::write(rig.dir.join("out"), "").unwrap();
            let command = ["cat", "/proc/self/environ"];
            let child = rig.spawn(&command, &variables, without).unwrap();
            assert_eq!((decided(&child.launch), wait(&child.pidfd)), (Launch::Done, Exit::Code(0)));
            let said = std::fs::read(rig.dir.join("out")).unwrap();
            assert_eq!(said, (variables.join("\0") + "\0").as_bytes());
            assert_eq!(rig.signature().unwrap().leader.pid, child.pid);
        }
        let (large, much) = ("x".repeat(200_000), "x".repeat(100_000));
        for variables in [vec![large.as_str()], vec![much.as_str(); 60]] {
            let child = rig.spawn(&["true"], &variables, without).unwrap();
            assert_eq!(decided(&child.launch), Launch::Failed(Stage::Exec, Errno::TOOBIG));
            assert_eq!(wait(&child.pidfd), Exit::Code(127));
        }
        assert_eq!(
            rig.spawn(&["true"], &[large.as_str(); 100], without).err(),
            Some(Errno::TOOBIG)
        );
    }
    rig.blocks.give_back();
    assert_eq!(rig.blocks.count(), 1);
}

#[test]
fn a_thousand_launches_hang_at_once_and_each_gets_its_own() {
    const COUNT: usize = 1000;
    let mut rig = Rig::new("crowd");
    limits::raise_nofile();
    let fifo = rig.dir.join("out");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let names: Vec<String> = (0..COUNT).map(|number| format!("N={number}")).collect();
    let mut spawn = |name: &String| rig.spawn(&["sh", "-c", "exit $((N % 100))"], &[name], "");
    let children: Vec<_> = names.iter().map(|name| spawn(name).unwrap()).collect();
    assert!(children.iter().all(|child| child.launch.look() == Launch::Pending));
    assert_eq!(rig.blocks.count(), COUNT);
    let _reader = std::fs::File::open(&fifo).unwrap();
    for (number, child) in children.iter().enumerate() {
        assert_eq!(decided(&child.launch), Launch::Done);
        assert_eq!(wait(&child.pidfd), Exit::Code(number as i32 % 100));
    }
    rig.blocks.give_back();
    assert_eq!(rig.blocks.count(), 1);
}
