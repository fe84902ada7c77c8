//! [`Kernel`] over the [`World`]: it can fail at every call, and the daemon can die at any.
use crate::fake::{Fake, pause};
use crate::handle::Handle;
use crate::proc::{Pre, Proc, State, Tag};
use crate::world::{Key, NAMES, OUTSIDE, note};
use opm::process::stat::{Stat, environ_value};
use opm::process::{Exit, Identity, Namespace, Pid};
use opm::sys::{Child, Errno, Features, Kernel, Launch, Mode, Plan, Reach, Result, Stage, Wake};

impl Kernel for Fake {
    type Pidfd = Handle;
    type Launch = u64;
    type File = u64;

    fn now(&self) -> u64 {
        self.world.borrow().now
    }

    fn wall(&self) -> u64 {
        let world = self.world.borrow();
        world.now + world.wall_offset
    }

    fn random(&mut self) -> u64 {
        self.enter().rng.next()
    }

    fn features(&self) -> Features {
        self.world.borrow().features
    }

    fn own_identity(&mut self) -> Identity {
        let world = self.enter();
        let own = world.daemon.and_then(|key| world.at(key)).map(|at| &world.procs[at]);
        own.map_or(Identity::default(), |own| Identity {
            pid: own.pid,
            start_time: own.start,
            inode: if world.features.pidfd_inode { own.key } else { 0 },
        })
    }

    fn own_uid(&self) -> u32 {
        1000
    }

    fn own_memory(&self) -> u64 {
        0
    }

    fn own_program(&self) -> Result<String> {
        Err(Errno::NOSYS)
    }

    fn is_alone_in_cgroup(&mut self) -> bool {
        false
    }

    fn cgroup(&mut self, _: Pid) -> Option<String> {
        None
    }

    fn proportional_memory(&mut self, _: Pid) -> Option<u64> {
        None
    }

    fn spawn(&mut self, plan: &Plan<'_>, journal: &u64) -> Result<Child<Handle, u64>> {
        let mut world = self.enter();
        if world.fault(|f| f.spawn) {
            let errno = world.rng.pick(&[Errno::AGAIN, Errno::NOMEM, Errno::MFILE]);
            return Err(pause(&mut world, errno));
        }
        let daemon = world.daemon.ok_or(Errno::SRCH)?;
        let env: Vec<u8> = plan.env.iter().flat_map(|e| e.iter().copied().chain([0])).collect();
        let name = environ_value(&env, "OPM_NAME").unwrap_or_default();
        let service = NAMES.iter().position(|n| n.as_bytes() == name).unwrap_or(0);
        let key = world.fork(Some(daemon), daemon).ok_or(Errno::AGAIN)?;
        world.check_fork(service, &env);
        let fails = world.fault(|f| f.exec).then(|| {
            let stages = [Stage::Sign, Stage::Setup, Stage::Directory, Stage::Log, Stage::Exec];
            let stage = world.rng.pick(&stages);
            let errno = match stage {
                Stage::Sign => Errno::NOSPC,
                Stage::Exec => world.rng.pick(&[Errno::NOENT, Errno::ACCESS, Errno::NOMEM]),
                _ => world.rng.pick(&[Errno::NOENT, Errno::MFILE]),
            };
            (stage, errno)
        });
        world.fd += 1;
        let launch = world.fd;
        world.launches.insert(launch, (Launch::Pending, None));
        let generation = plan.signature.generation;
        let cmdline = plan.argv.iter().flat_map(|w| w.bytes().chain([0])).collect();
        let at = world.procs.len() - 1;
        if world.features.time_namespace {
            let namespace = world.new_namespace();
            world.procs[at].namespace = namespace;
            world.procs[at].given = namespace.id;
        }
        let p = &mut world.procs[at];
        p.tag = Some(Tag { service, generation, born: daemon });
        p.pre = Some(Pre {
            stage: 0,
            launch,
            file: *journal,
            offset: plan.signature_offset,
            signature: plan.signature,
            limit: plan.limit_mark,
            env,
            cmdline,
            cwd: plan.cwd.to_owned(),
            fails,
        });
        let pid = p.pid;
        note!(world, "spawn {pid} for {} generation {generation}", NAMES[service]);
        let pidfd = self.handle(&mut world, key);
        Ok(Child { pid, pidfd, launch })
    }

    fn launch(&mut self, pipe: &mut u64) -> Launch {
        let world = self.enter();
        world.launches.get(pipe).map_or(Launch::Done, |l| l.0)
    }

    fn pidfd_open(&mut self, pid: Pid) -> Result<Handle> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(pause(&mut world, errno));
        }
        let key = world.by_pid(pid).map(|p| p.key).ok_or(Errno::SRCH)?;
        Ok(self.handle(&mut world, key))
    }

    fn child(&mut self, pid: Pid) -> Handle {
        let mut world = self.enter();
        let is_it = |p: &&Proc| p.pid == pid && Some(p.parent) == world.daemon;
        let key = world.procs.iter().find(is_it).map_or(0, |p| p.key);
        self.handle(&mut world, key)
    }

    fn inode(&mut self, pidfd: &Handle) -> Option<u64> {
        self.enter().features.pidfd_inode.then_some(pidfd.key)
    }

    fn is_dead(&mut self, pidfd: &Handle) -> Result<bool> {
        let world = self.enter();
        Ok(world.at(pidfd.key).is_none_or(|at| !world.procs[at].is_alive()))
    }

    fn signal(&mut self, pidfd: &Handle, signal: i32, reach: Reach) -> Result<()> {
        let mut world = self.enter();
        if reach == Reach::Process {
            world.at(pidfd.key).ok_or(Errno::SRCH)?;
            world.deliver(pidfd.key, signal);
            return Ok(());
        }
        if !world.features.pgroup_signal {
            return Err(Errno::INVAL);
        }
        let members = world.procs.iter().filter(|p| p.group.0 == pidfd.key);
        let members: Vec<Key> = members.map(|p| p.key).collect();
        if members.is_empty() {
            return Err(Errno::SRCH);
        }
        for key in members {
            world.deliver(key, signal);
        }
        Ok(())
    }

    fn wait(&mut self, pidfd: &Handle, reap: bool) -> Result<Option<Exit>> {
        let mut world = self.enter();
        let at = world.at(pidfd.key).ok_or(Errno::CHILD)?;
        let p = &world.procs[at];
        if Some(p.parent) != world.daemon {
            return Err(Errno::CHILD);
        }
        match p.state {
            State::Zombie(exit) if !p.traced => {
                world.note_end_known(pidfd.key);
                if reap {
                    world.reap(pidfd.key);
                }
                Ok(Some(exit))
            }
            _ => Ok(None),
        }
    }

    fn exit_of_stranger(&mut self, pidfd: &Handle, pid: Pid) -> Exit {
        let mut world = self.enter();
        world.note_end_known(pidfd.key);
        let reaped = world.exits.get(&pidfd.key).copied();
        if let Some(exit) = reaped.filter(|_| world.features.get_info) {
            return exit;
        }
        match world.by_pid(pid).map(|p| p.state) {
            Some(State::Zombie(exit)) => exit,
            _ => Exit::Unknown,
        }
    }

    fn own_children(&mut self, known: usize, out: &mut Vec<Pid>) -> Result<usize> {
        let place = if self.place <= known { self.place } else { 0 };
        self.place = 0;
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(pause(&mut world, errno));
        }
        let of = |p: &&Proc| Some(p.parent) == world.daemon;
        let mut mine: Vec<_> = world.procs.iter().filter(of).collect();
        mine.sort_by_key(|p| p.arrival);
        out.extend(mine.iter().skip(place).map(|p| p.pid));
        let all = mine.len();
        drop(world);
        self.place = all.max(place);
        Ok(place)
    }

    fn children(&mut self, pid: Pid, out: &mut Vec<Pid>) -> Result<()> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(errno);
        }
        let parent = world.by_pid(pid).map(|p| p.key).ok_or(Errno::NOENT)?;
        let of = |p: &&Proc| p.parent == parent;
        let pids: Vec<Pid> = world.procs.iter().filter(of).map(|p| p.pid).collect();
        for pid in pids {
            if !world.fault(|f| f.children_missing) {
                out.push(pid);
            }
        }
        Ok(())
    }

    fn processes(&mut self, after: Pid, out: &mut Vec<Pid>) -> Result<()> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(errno);
        }
        let mut pids: Vec<Pid> = world.procs.iter().map(|p| p.pid).collect();
        pids.sort_unstable();
        let few = 1 + world.rng.below(3);
        out.extend(pids.into_iter().filter(|pid| *pid > after).take(few));
        Ok(())
    }

    fn forks(&mut self) -> Option<u64> {
        let world = self.enter();
        world.counts_forks.then_some(world.forks)
    }

    fn free_pids(&mut self) -> Option<u64> {
        let world = self.enter();
        world.counts_forks.then(|| world.free_pids())
    }

    fn last_pid(&mut self) -> Option<Pid> {
        Some(self.enter().last_pid)
    }

    fn ran(&mut self, _: Pid) -> Option<u64> {
        None
    }

    fn stat(&mut self, pid: Pid) -> Result<Stat> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(errno);
        }
        let p = world.by_pid(pid).ok_or(Errno::NOENT)?;
        let (state, exit_code) = match p.state {
            State::Zombie(Exit::Code(code)) => (b'Z', code << 8),
            State::Zombie(Exit::Signal(signal)) => (b'Z', signal),
            State::Zombie(Exit::Unknown) => (b'Z', 0),
            State::Stopped => (b'T', 0),
            State::Running if p.half_dead => (b'Z', 0),
            State::Running => (b'S', 0),
        };
        let parent = world.at(p.parent).map_or(1, |at| world.procs[at].pid);
        Ok(Stat {
            pid,
            state,
            ppid: parent,
            pgid: p.group.1,
            sid: p.session.1,
            utime: 0,
            stime: 0,
            num_threads: if p.half_dead && p.is_alive() { 3 } else { 1 },
            execed: p.leader || p.tag.is_none(),
            start_time: p.start,
            rss_pages: 1,
            exit_code,
        })
    }

    fn locks_limit(&mut self, pid: Pid) -> Result<(u64, u64)> {
        self.of(pid, |p| Ok(p.limit))
    }

    fn environ(&mut self, pid: Pid) -> Result<Vec<u8>> {
        self.of(pid, |p| match p.env_hidden {
            true => Err(Errno::ACCESS),
            false if p.mute => Err(Errno::TIMEDOUT),
            false => Ok((*p.env).clone()),
        })
    }

    fn cmdline(&mut self, pid: Pid) -> Result<Vec<u8>> {
        self.of(pid, |p| Ok((*p.cmdline).clone()))
    }

    fn cwd(&mut self, pid: Pid) -> Result<String> {
        self.of(pid, |p| Ok(p.cwd.to_string()))
    }

    fn real_path(&mut self, path: &str) -> Result<String> {
        Ok(path.to_owned())
    }

    fn uids(&mut self, pid: Pid) -> Result<[u32; 3]> {
        self.of(pid, |p| Ok([p.uid; 3]))
    }

    fn may_raise_limits(&mut self) -> bool {
        self.world.borrow().may_raise
    }

    fn own_namespace(&self) -> u64 {
        if self.world.borrow().features.time_namespace { OUTSIDE.inode } else { 0 }
    }

    fn time_namespace(&mut self, pid: Pid) -> Result<u64> {
        self.world.borrow_mut().inherit_namespace(pid);
        self.of(pid, |p| match p.is_alive() {
            true => Ok(p.namespace.inode),
            false => Err(Errno::NOENT),
        })
    }

    fn pid_in(&mut self, _path: &str) -> Option<Pid> {
        let pid = self.enter().some_main();
        note!(self.world.borrow(), "PID FILE: {pid:?}");
        pid
    }

    fn pid_namespace(&mut self, pid: Pid) -> Result<u64> {
        self.of(pid, |p| Ok(p.pid_namespace))
    }

    fn is_namespace_alive(&mut self, namespace: Namespace) -> Option<bool> {
        let mut world = self.enter();
        if !world.features.namespace_handle || namespace.id == 0 {
            return None;
        }
        let is_in = |p: &Proc| p.is_alive() && p.namespace.id == namespace.id;
        let any = world.procs.iter().any(is_in);
        Some(any || world.fault(|f| f.pinned))
    }

    fn watch(&mut self, pidfd: &Handle, wake: Wake) -> Result<()> {
        let mut world = self.enter();
        if world.fault(|f| f.watch) {
            return Err(pause(&mut world, Errno::NOSPC));
        }
        if world.watched.iter().any(|(fd, ..)| *fd == pidfd.fd) {
            return Err(Errno::EXIST);
        }
        world.watched.push((pidfd.fd, pidfd.key, wake));
        if world.at(pidfd.key).is_none_or(|at| !world.procs[at].is_alive()) {
            world.wakes.push(wake);
        }
        Ok(())
    }

    fn unwatch(&mut self, pidfd: &Handle) {
        let mut world = self.enter();
        world.watched.retain(|(fd, ..)| *fd != pidfd.fd);
    }

    fn watch_launch(&mut self, launch: &u64, wake: Wake) -> Result<()> {
        let mut world = self.enter();
        if world.fault(|f| f.watch) {
            return Err(pause(&mut world, Errno::NOSPC));
        }
        let mut decided = false;
        if let Some(entry) = world.launches.get_mut(launch) {
            entry.1 = Some(wake);
            decided = entry.0 != Launch::Pending;
        }
        if decided {
            world.wakes.push(wake);
        }
        Ok(())
    }

    fn unwatch_launch(&mut self, launch: &mut u64) {
        if let Some(entry) = self.enter().launches.get_mut(launch) {
            entry.1 = None;
        }
    }

    fn open(&mut self, name: &str, mode: Mode) -> Result<u64> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(pause(&mut world, errno));
        }
        let files = &mut world.files;
        let id = match files.names.get(name) {
            Some(id) => *id,
            None => {
                files.next += 1;
                files.names.insert(name.to_owned(), files.next);
                files.next
            }
        };
        let data = files.data.entry(id).or_default();
        if mode == Mode::Fresh {
            data.clear();
        }
        Ok(id)
    }

    fn load(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(pause(&mut world, errno));
        }
        let id = world.files.names.get(name).copied();
        Ok(id.map(|id| world.files.data.get(&id).cloned().unwrap_or_default()))
    }

    fn read_at(&mut self, file: &u64, offset: u64, bytes: &mut [u8]) -> Result<usize> {
        let world = self.enter();
        let data = world.files.data.get(file).and_then(|data| data.get(offset as usize..));
        let data = data.unwrap_or_default();
        let length = data.len().min(bytes.len());
        bytes[..length].copy_from_slice(&data[..length]);
        Ok(length)
    }

    fn write_at(&mut self, file: &u64, offset: u64, bytes: &[u8]) -> Result<usize> {
        let mut world = self.enter();
        let start = offset as usize;
        let length = world.files.data.get(file).map_or(0, Vec::len);
        let extends = start + bytes.len() > length;
        let is_journal = world.files.names.get("journal") == Some(file);
        if world.fault(|f| f.disk) {
            world.journal_failed |= is_journal;
            let errno = if extends { Errno::NOSPC } else { Errno::IO };
            return Err(pause(&mut world, errno));
        }
        let mut count = bytes.len();
        // A small write within one page of a file that has it is whole or not at all.
        if (extends || count > 512) && count > 1 && world.fault(|f| f.short) {
            count = 1 + world.rng.below(count - 1);
        }
        if let Some(data) = world.files.data.get_mut(file) {
            data.resize(length.max(start + count), 0);
            data[start..start + count].copy_from_slice(&bytes[..count]);
        }
        Ok(count)
    }

    fn set_len(&mut self, file: &u64, len: u64) -> Result<()> {
        if let Some(data) = self.enter().files.data.get_mut(file) {
            data.resize(len as usize, 0);
        }
        Ok(())
    }

    fn sync(&mut self, _file: &u64) -> Result<()> {
        let mut world = self.enter();
        if world.fault(|f| f.disk) { Err(Errno::IO) } else { Ok(()) }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let mut world = self.enter();
        if world.fault(|f| f.disk) {
            return Err(Errno::IO);
        }
        let id = world.files.names.remove(from).ok_or(Errno::NOENT)?;
        world.files.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn sync_home(&mut self) -> Result<()> {
        self.enter();
        Ok(())
    }
}
