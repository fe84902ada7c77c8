//! Children that share this process's memory: what they may not change, and what ends them alone.
use opm::process::journal_format::{SIGNATURE_BYTES, Signature};
use opm::process::{Exit, Identity, Namespace};
use opm::sys::attributes::{Means, own};
use opm::sys::block::{Block, Blocks};
use opm::sys::exec_pipe::ExecPipe;
use opm::sys::spawn::*;
use opm::sys::table::Table;
use opm::sys::{
    Child, Errno, Features, Launch, Orders, Plan, Reach, Result, Stage, Streams, Strings, limits,
    namespace, pidfd, procfs, raw,
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
    unsafe { clone(block, wait_for_nothing, argument, Shares::Memory) }.unwrap().1
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
    let (_, pidfd) = unsafe { clone(&block, overflow, depth, Shares::Memory) }.unwrap();
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
    table: Table,
    time_namespace: bool,
}

impl Rig {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("opm-spawn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name| OwnedFd::from(std::fs::File::create(dir.join(name)).unwrap());
        let (journal, lock) = (file("journal"), file("lock"));
        Self {
            dir,
            journal,
            lock,
            means: Means::read(None),
            blocks: Blocks::default(),
            table: Table::new(),
            time_namespace: false,
        }
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
        let time_namespace = self.time_namespace;
        let features = Features { time_namespace, ..Features::ALL }.without(without);
        let parent = Parent {
            journal: &self.journal,
            held: [self.journal.as_raw_fd(), self.lock.as_raw_fd()],
            listener: -1,
            means: &self.means,
            features,
        };
        spawn(&plan, &mut self.blocks, &mut self.table, parent)
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

impl Rig {
    fn look(&mut self, launch: &mut ExecPipe) -> Launch {
        launch.look(&mut self.table)
    }

    fn decided(&mut self, launch: &mut ExecPipe) -> Launch {
        loop {
            match self.look(launch) {
                Launch::Pending => std::thread::yield_now(),
                decided => return decided,
            }
        }
    }
}

const TIERS: [&str; 4] = ["", "shared-table", "shared-memory", "shared-memory,clone3"];

#[test]
fn an_environment_of_one_byte_to_two_megabytes_arrives_whole() {
    let mut rig = Rig::new("env");
    for without in TIERS {
        for (count, length) in [(1, 1), (3, 30_000), (18, 100_000)] {
            let variables = vec![format!("A={}", "x".repeat(length)); count];
            let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
            std::fs::write(rig.dir.join("out"), "").unwrap();
            let command = ["cat", "/proc/self/environ"];
            let mut child = rig.spawn(&command, &variables, without).unwrap();
            let fate = rig.decided(&mut child.launch);
            assert_eq!((fate, wait(&child.pidfd)), (Launch::Done, Exit::Code(0)));
            let said = std::fs::read(rig.dir.join("out")).unwrap();
            assert_eq!(said, (variables.join("\0") + "\0").as_bytes());
            assert_eq!(rig.signature().unwrap().leader.pid, child.pid);
        }
        let (large, much) = ("x".repeat(200_000), "x".repeat(100_000));
        for variables in [vec![large.as_str()], vec![much.as_str(); 60]] {
            let mut child = rig.spawn(&["true"], &variables, without).unwrap();
            assert_eq!(rig.decided(&mut child.launch), Launch::Failed(Stage::Exec, Errno::TOOBIG));
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
fn a_child_signs_what_proc_tells_of_it() {
    let mut rig = Rig::new("signs");
    rig.time_namespace = namespace::can_make();
    for without in TIERS {
        // In the tick of their fork, and some in the next one.
        for _ in 0..40 {
            let mut child = rig.spawn(&["sleep", "1000"], &[], without).unwrap();
            assert_eq!(rig.decided(&mut child.launch), Launch::Done);
            let signed = rig.signature().unwrap();
            let (pid, inode) = (child.pid, pidfd::inode(&child.pidfd).unwrap());
            let start_time = procfs::stat(pid).unwrap().start_time;
            assert_eq!(signed.leader, Identity { pid, start_time, inode });
            if rig.time_namespace {
                let its = namespace::inode(pid).unwrap();
                assert_eq!(signed.namespace.inode, its);
                let by_pidfd = namespace::inode_of(child.pidfd.as_fd());
                assert!(by_pidfd.is_none_or(|inode| inode == its), "{by_pidfd:?}");
                assert_ne!(its, namespace::of_self().inode);
            }
            pidfd::signal(&child.pidfd, libc::SIGKILL, Reach::Process).unwrap();
            assert_eq!(wait(&child.pidfd), Exit::Signal(libc::SIGKILL));
        }
    }
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
    let mut children: Vec<_> = names.iter().map(|name| spawn(name).unwrap()).collect();
    let is_pending = |child: &mut Child<_, _>| rig.look(&mut child.launch) == Launch::Pending;
    assert!(children.iter_mut().all(is_pending));
    assert_eq!(rig.blocks.count(), COUNT);
    let _reader = std::fs::File::open(&fifo).unwrap();
    for (number, child) in children.iter_mut().enumerate() {
        assert_eq!(rig.decided(&mut child.launch), Launch::Done);
        assert_eq!(wait(&child.pidfd), Exit::Code(number as i32 % 100));
    }
    rig.blocks.give_back();
    assert_eq!(rig.blocks.count(), 1);
}

/// What the program of a child finds open, and the number of its end of the launch pipe here.
fn found_open(rig: &mut Rig, without: &str) -> String {
    std::fs::write(rig.dir.join("out"), "").unwrap();
    // The shell itself opens the directory to list it.
    let command = ["sh", "-c", "cd /proc/self/fd && for fd in *; do readlink $fd; done; exit 0"];
    let mut child = rig.spawn(&command, &["PATH=/bin:/usr/bin"], without).unwrap();
    assert_eq!(rig.decided(&mut child.launch), Launch::Done);
    assert_eq!(wait(&child.pidfd), Exit::Code(0));
    std::fs::read_to_string(rig.dir.join("out")).unwrap()
}

#[test]
fn a_child_takes_nothing_of_our_table_along_and_leaves_it_as_it_was() {
    let mut rig = Rig::new("table");
    limits::raise_nofile();
    // Not close-on-exec, as what is about to be handed on to the next image.
    let pinned = rustix::io::dup(&rig.lock).unwrap();
    let many: Vec<_> = (0..500).map(|_| rustix::io::dup(&rig.lock).unwrap()).collect();
    let lock = rig.dir.join("lock");
    for without in TIERS {
        for _ in 0..12 {
            let open = found_open(&mut rig, without);
            assert!(open.contains("/dev/null") && open.contains("/out"), "{open}");
            assert!(!open.contains(lock.to_str().unwrap()), "{without}: {open}");
        }
        let is_lock = |fd: &OwnedFd| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::read_link(path).is_ok_and(|file| file == lock)
        };
        assert!(many.iter().chain([&pinned, &rig.lock]).all(is_lock), "{without}");
    }
}

#[test]
fn a_child_that_is_killed_before_it_has_left_our_table_says_nothing() {
    let mut rig = Rig::new("killed");
    limits::raise_nofile();
    let mut unsaid = 0;
    for round in 0u32..300 {
        let mut child = rig.spawn(&["true"], &["A=1"], "").unwrap();
        for _ in 0..round % 60 {
            std::thread::yield_now();
        }
        pidfd::signal(&child.pidfd, libc::SIGKILL, Reach::Process).ok();
        wait(&child.pidfd);
        let fate = rig.look(&mut child.launch);
        match child.launch.take() {
            Some(report) => {
                assert_eq!(fate, Launch::Pending);
                unsaid += 1;
                rig.table.take_back(report);
            }
            // Children of other tests may hold copies of it for a moment.
            None => assert_eq!(rig.decided(&mut child.launch), Launch::Done),
        }
    }
    assert!(unsaid > 0, "each had left it");
    assert_eq!(rig.table.count(), 32);
}

#[test]
fn nothing_gets_the_word_of_a_child_whose_launch_is_not_looked_at() {
    use rustix::pipe::{PipeFlags, pipe_with};
    let mut rig = Rig::new("dropped");
    limits::raise_nofile();
    // As in the daemon: it takes them from a signalfd.
    // SAFETY: a plain C struct, which sigfillset(3) fills; of this thread alone.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
    let mut spawn = |_| rig.spawn(&["true"], &["A=1"], "").unwrap();
    let children: Vec<_> = (0..30).map(&mut spawn).collect();
    let pidfds: Vec<_> = children.into_iter().map(|child| child.pidfd).collect();
    let others: Vec<_> = (0..60).map(|_| pipe_with(PipeFlags::NONBLOCK).unwrap()).collect();
    // Nor does the word of a closed pipe end it.
    assert!(pidfds.iter().all(|pidfd| wait(pidfd) == Exit::Code(0)));
    for (reader, _writer) in &others {
        assert_eq!(rustix::io::read(reader, &mut [0; 1]), Err(Errno::AGAIN));
    }
}
