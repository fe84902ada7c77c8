//! Limits that the kernel keeps, by cgroup v2: a leaf for each incarnation that has any, in the
//! part of the tree that is delegated to this daemon (systemd's CGROUP_DELEGATION).
//!
//! Nothing is made or moved before some service has a limit. No cgroup but the root may have
//! processes and limited children both, so that what is in ours moves to a leaf first: [`REST`].
use super::orders::option;
use super::{Errno, Granted, Result, Stage, errno_of, own_pid, procfs};
use crate::process::Pid;
use crate::process::stat::status_field;
use crate::service::options::{Exec, Key};
use rustix::fd::OwnedFd;
use rustix::fs::Access;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the daemon is, and what it started without limits. The unit of `daemon setup` names it,
/// too.
const REST: &str = "opm-daemon";
/// Times that a cgroup is emptied whose processes fork meanwhile.
const MOVES_MAX: u32 = 8;
/// The period of which a share of CPU time is a part, in microseconds.
const PERIOD: u64 = 100_000;
const LISTS: [&str; 2] = ["cgroup.controllers", "cgroup.subtree_control"];

/// The cgroup of an incarnation: the id of its service, and its generation.
pub type Leaf = (u32, u64);

/// One that is made only to see whether that is possible.
pub(super) const TRIAL: Leaf = (u32::MAX, 0);

/// The leaves of a home.
#[derive(Debug)]
pub struct Cgroups {
    base: String,
    /// What the names of this home's leaves begin with.
    prefix: String,
    leaves: BTreeSet<Leaf>,
    /// What is empty no more of them, or not yet.
    left: Vec<Leaf>,
}

/// What of the limits of `exec` goes to which file, and the controller that reads it.
fn limits(exec: &Exec) -> impl Iterator<Item = (Key, &'static str, &'static str, String)> {
    let memory = exec.memory_max.map(|bytes| bytes.0.to_string());
    let share = exec.cpu_max.as_ref().map(|share| u64::from(share.value.0) * PERIOD / 100);
    let cpu = share.map(|share| format!("{share} {PERIOD}"));
    let all = [
        (Key::memory_max, "memory", "memory.max", memory),
        (Key::cpu_max, "cpu", "cpu.max", cpu),
        (Key::pids_max, "pids", "pids.max", exec.pids_max.map(|count| count.to_string())),
    ];
    let wanted = |(key, controller, file, text)| Some((key, controller, file, text?));
    all.into_iter().filter_map(wanted)
}

/// Whether `exec` asks for any.
pub fn has_limits(exec: &Exec) -> bool {
    limits(exec).next().is_some()
}

/// Where a launch fails that can have none of what `exec` asks for.
pub(super) fn no_limits(exec: &Exec) -> (Stage, Errno) {
    (limits(exec).next().map_or(Stage::Cgroup, |(key, ..)| option(key)), Errno::OPNOTSUPP)
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| errno_of(&error))
}

fn read(path: &str) -> Result<String> {
    procfs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Makes a cgroup that may be there already.
fn create(path: &str) -> Result<()> {
    match fs::create_dir(path).map_err(|error| errno_of(&error)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The cgroup below which leaves are made. Errors: why none can be, in words.
fn base() -> std::result::Result<String, &'static str> {
    let own = procfs::own_cgroup().ok_or("no cgroup v2 is mounted at /sys/fs/cgroup")?;
    let is_here = read(&format!("{own}/cgroup.procs"));
    let own_pid = own_pid().to_string();
    // What is mounted may be another container's part.
    if !is_here.is_ok_and(|pids| pids.lines().any(|pid| pid == own_pid)) {
        return Err("what is mounted at /sys/fs/cgroup does not show the daemon");
    }
    let base = own.strip_suffix(REST).map_or(own.as_str(), |base| base.trim_end_matches('/'));
    // Where systemd rules, it says so of what it leaves to others; else whoever may write does.
    let told = ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(base, name, &mut value) == Ok(1) && value == *b"1"
    });
    let is_root = procfs::cgroup("self").is_some_and(|path| path.trim_end_matches('/').is_empty());
    if !told && !is_root && Path::new("/run/systemd/system").exists() {
        return Err("systemd has not delegated the daemon's cgroup");
    }
    // It could not put the next daemon into a cgroup whose leaves are limited.
    if told && own == base && base.ends_with(".service") {
        return Err("its unit has no DelegateSubgroup=opm-daemon, or systemd is older than 254");
    }
    let files = ["", "/cgroup.procs", "/cgroup.subtree_control"];
    let mut paths = files.into_iter().map(|file| format!("{base}{file}"));
    if !paths.all(|path| rustix::fs::access(path, Access::WRITE_OK).is_ok()) {
        return Err("the daemon may not write its cgroup");
    }
    Ok(base.to_owned())
}

/// What limits services can have here. Errors: why none, in words.
pub(super) fn offer() -> std::result::Result<String, &'static str> {
    let base = base()?;
    let there = read(&format!("{base}/{}", LISTS[0])).unwrap_or_default();
    let mut offered = there.split_whitespace().filter(|it| ["cpu", "memory", "pids"].contains(it));
    let first = offered.next().ok_or("its controllers are not on (in use by cgroup v1?)")?;
    Ok(offered.fold(format!("{base}: {first}"), |text, next| text + " " + next))
}

/// A daemon that a service with limits has started is none of its processes.
pub fn leave_leaf() {
    let own = procfs::own_cgroup().unwrap_or_default();
    if let Some((base, name)) = own.rsplit_once('/')
        && name.starts_with("opm-")
        && name != REST
    {
        // Where that can't be, what is in that leaf proves nothing.
        create(&format!("{base}/{REST}")).ok();
        write(&format!("{base}/{REST}/cgroup.procs"), "0").ok();
    }
}

/// Removes a cgroup and those below it. Errors: EBUSY: something is in one.
fn remove(path: &str) -> Result<()> {
    for below in directories(path) {
        remove(&below)?;
    }
    match fs::remove_dir(path).map_err(|error| errno_of(&error)) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn directories(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(std::io::Result::ok);
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.filter_map(|entry| Some(format!("{path}/{}", entry.file_name().to_str()?))).collect()
}

/// The processes of a cgroup and of those below it.
fn pids_below(path: &str, pids: &mut Vec<Pid>) -> Result<()> {
    match read(&format!("{path}/cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse::<Pid>().ok())),
        // What is in a threaded one is listed further above.
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    directories(path).iter().try_for_each(|below| pids_below(below, pids))
}

impl Cgroups {
    /// Takes up the leaves that an earlier daemon of this home (its device and inode) has left, and
    /// removes those that are empty. None: there are no limits to be had here.
    pub(super) fn open(home: (u64, u64)) -> Option<Self> {
        let prefix = format!("opm-{:x}-{:x}-", home.0, home.1);
        let base = base().ok()?;
        let mut new = Self { base, prefix, leaves: BTreeSet::default(), left: Vec::new() };
        for path in directories(&new.base) {
            let name = path.rsplit('/').next().and_then(|name| name.strip_prefix(&new.prefix));
            let numbers = name.and_then(|name| name.split_once('-'));
            let leaf = numbers.and_then(|(id, it)| Some((id.parse().ok()?, it.parse().ok()?)));
            if remove(&path).is_err() {
                new.leaves.extend(leaf);
            }
        }
        Some(new)
    }

    fn path(&self, (id, generation): Leaf) -> String {
        format!("{}/{}{id}-{generation}", self.base, self.prefix)
    }

    /// Makes the leaf of an incarnation, with the limits of `exec`. Gives what a child writes 0 to
    /// in order to be in it. Errors: which limit can't be had, and why.
    pub(super) fn make(&mut self, leaf: Leaf, exec: &Exec) -> Granted<OwnedFd> {
        let path = self.path(leaf);
        let mut is_made = false;
        for (key, controller, file, text) in limits(exec) {
            let refused = |errno| (option(key), errno);
            self.turn_on(controller).map_err(refused)?;
            if !is_made {
                create(&path).map_err(refused)?;
                self.leaves.insert(leaf);
                is_made = true;
            }
            write(&format!("{path}/{file}"), &text).map_err(refused)?;
        }
        if exec.memory_max.is_some() {
            // A service is one: half of it is nothing to go on with.
            write(&format!("{path}/memory.oom.group"), "1")
                .map_err(|errno| (option(Key::memory_max), errno))?;
        }
        self.entry(leaf).map_err(|errno| (Stage::Cgroup, errno))
    }

    /// What a child writes 0 to in order to be in this leaf.
    fn entry(&self, leaf: Leaf) -> Result<OwnedFd> {
        let file = fs::OpenOptions::new().write(true).open(self.path(leaf) + "/cgroup.procs");
        file.map(OwnedFd::from).map_err(|error| errno_of(&error))
    }

    /// The same, of one that was made; none if it has none.
    pub(super) fn enter(&self, leaf: Leaf) -> Result<Option<OwnedFd>> {
        if self.leaves.contains(&leaf) { self.entry(leaf).map(Some) } else { Ok(None) }
    }

    /// Lets leaves have limits of a kind. Errors: EOPNOTSUPP: there are none of it here.
    fn turn_on(&self, controller: &str) -> Result<()> {
        let [there, on] = LISTS.map(|list| format!("{}/{list}", self.base));
        let has = |list| Ok(read(list)?.split_whitespace().any(|it| it == controller));
        if has(&on)? {
            return Ok(());
        }
        if !has(&there)? {
            return Err(Errno::OPNOTSUPP);
        }
        for _ in 0..MOVES_MAX {
            match write(&on, &format!("+{controller}")) {
                Err(Errno::BUSY) => self.move_out()?,
                other => return other,
            }
        }
        Err(Errno::BUSY)
    }

    /// What is in the base goes to a leaf of its own.
    fn move_out(&self) -> Result<()> {
        let rest = format!("{}/{REST}", self.base);
        create(&rest)?;
        for pid in read(&format!("{}/cgroup.procs", self.base))?.lines() {
            match write(&format!("{rest}/cgroup.procs"), pid) {
                // It is gone; or of a PID namespace that we don't see.
                Ok(()) | Err(Errno::SRCH | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Who is in a leaf: 0 for what can't be seen.
    pub(super) fn pids(&self, leaf: Leaf) -> Vec<Pid> {
        let path = self.path(leaf);
        if !self.leaves.contains(&leaf) {
            return Vec::new();
        }
        match procfs::read(&format!("{path}/cgroup.events")) {
            Ok(events) if status_field(&events, "populated ") == Some(b"0") => return Vec::new(),
            Err(Errno::NOENT | Errno::NODEV) => return Vec::new(),
            Ok(_) | Err(_) => {}
        }
        let mut pids = Vec::new();
        pids_below(&path, &mut pids).map_or_else(|_| vec![0], |()| pids)
    }

    /// Whether the kernel has killed what is in a leaf for want of memory.
    pub(super) fn was_out_of_memory(&self, leaf: Leaf) -> bool {
        let events = self.leaves.contains(&leaf).then(|| self.path(leaf) + "/memory.events");
        let events = events.and_then(|path| procfs::read(&path).ok()).unwrap_or_default();
        status_field(&events, "oom_kill ").is_some_and(|count| count != b"0")
    }

    /// Removes the leaf of what has ended. What was let go of it may be in it still: then it is
    /// removed with a later one.
    pub(super) fn remove(&mut self, leaf: Leaf) {
        if self.leaves.remove(&leaf) {
            let mut left = std::mem::take(&mut self.left);
            left.push(leaf);
            left.retain(|leaf| remove(&self.path(*leaf)).is_err());
            self.left = left;
        }
    }
}
