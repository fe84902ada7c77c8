//! Umask, nice value and limits: read where a service is defined, neutral in the daemon, given to
//! a child before its exec.
use super::{Result, raw};
use crate::service::context::{Attributes, LIMIT_NAMES, Limits, UNLIMITED, format_limit};
use rustix::fs::Mode;
use rustix::process::{
    Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit, umask,
};

const COUNT: usize = LIMIT_NAMES.len();

/// In the order of [`LIMIT_NAMES`].
pub(super) const RESOURCES: [Resource; COUNT] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// Leaves the owner everything and others nothing.
const PRIVATE: Mode = Mode::from_bits_retain(0o077);

/// Does `make` under a umask that leaves the owner everything and others nothing, whatever the
/// caller's is.
pub fn privately<T>(make: impl FnOnce() -> T) -> T {
    let before = umask(PRIVATE);
    let made = make();
    umask(before);
    made
}

/// Puts off what the shell that woke the daemon happened to have. To be nice no more takes a
/// privilege: without it the daemon stays so.
pub fn neutral() {
    umask(PRIVATE);
    setpriority_process(None, 0).ok();
}

/// Those of this process.
pub fn own() -> Attributes {
    // There is no call that only reads it; this process has one thread.
    let before = umask(PRIVATE);
    umask(before);
    Attributes {
        umask: before.as_raw_mode() & 0o777,
        nice: getpriority_process(None).unwrap_or(0),
        limits: RESOURCES.map(|resource| Some(number(getrlimit(resource).current))),
    }
}

fn number(limit: Option<u64>) -> u64 {
    limit.unwrap_or(UNLIMITED)
}

/// What a child is to be given, apart from what it has from us: as numbers for the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    umask: u32,
    nice: Option<i32>,
    /// The resource, its soft limit and its hard one.
    limits: [Option<(u32, [u64; 2])>; COUNT],
}

/// What this process, a daemon, has itself, and so can give.
#[derive(Clone, Debug)]
pub struct Means {
    nice: i32,
    limits: [Rlimit; COUNT],
    /// The soft limits that it was started with.
    usual: Limits,
}

impl Means {
    /// Read once. `nofile`: the soft limit of open files that the daemon was started with, if it
    /// has raised its own.
    pub fn read(nofile: Option<u64>) -> Self {
        let limits = RESOURCES.map(getrlimit);
        let mut usual = limits.map(|limit| Some(number(limit.current)));
        for (usual, resource) in usual.iter_mut().zip(RESOURCES) {
            if resource == Resource::Nofile {
                *usual = nofile.or(*usual);
            }
        }
        Self { nice: getpriority_process(None).unwrap_or(0), limits, usual }
    }

    /// `wanted` without the limits that a service gets anyway.
    pub fn unusual(&self, wanted: &Attributes) -> Attributes {
        let mut unusual = *wanted;
        for (limit, usual) in unusual.limits.iter_mut().zip(self.usual) {
            *limit = limit.filter(|_| *limit != usual);
        }
        unusual
    }

    /// What has to be done in a child that is to have `wanted`.
    pub fn given(&self, wanted: &Attributes) -> Given {
        let mut limits = [None; COUNT];
        let wishes = wanted.limits.iter().zip(self.usual).map(|(wish, usual)| wish.or(usual));
        let has = RESOURCES.into_iter().zip(&self.limits);
        for ((place, wish), (resource, has)) in limits.iter_mut().zip(wishes).zip(has) {
            let wish = wish.filter(|wish| *wish != number(has.current));
            *place = wish.map(|wish| (resource as u32, [wish, number(has.maximum).max(wish)]));
        }
        let nice = (wanted.nice != self.nice).then_some(wanted.nice);
        Given { umask: wanted.umask, nice, limits }
    }

    /// What of `wanted` no child of ours can have, as words; found out by trying.
    pub fn lacking(&self, wanted: &Attributes) -> Option<String> {
        let mut lacks = Vec::new();
        if wanted.nice < self.nice && !try_nice(wanted.nice, self.nice) {
            lacks.push(format!("nice {} instead of {}", self.nice, wanted.nice));
        }
        for (at, wish) in wanted.limits.iter().enumerate() {
            let (Some(wish), has) = (*wish, self.limits[at]) else { continue };
            let most = number(has.maximum);
            if wish > most && try_limit(RESOURCES[at], has, wish).is_err() {
                let (gets, wants) = (format_limit(most), format_limit(wish));
                lacks.push(format!("{} {gets} instead of {wants}", LIMIT_NAMES[at]));
            }
        }
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }
}

fn try_nice(wish: i32, has: i32) -> bool {
    let can = setpriority_process(None, wish).is_ok();
    // To be nicer is always allowed.
    can && setpriority_process(None, has).is_ok()
}

fn try_limit(resource: Resource, has: Rlimit, wish: u64) -> Result<()> {
    let maximum = (wish != UNLIMITED).then_some(wish);
    setrlimit(resource, Rlimit { maximum, ..has })?;
    setrlimit(resource, has)
}

/// setpriority(2) of this process. By the rules of [`raw`].
pub(super) fn set_nice(nice: i32) -> raw::Result<usize> {
    raw::numbers(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, nice as usize])
}

/// In a child, after its last open: its files and descriptors are ours until then. As near as can
/// be where the kernel refuses. By the rules of [`raw`].
pub fn give(given: &Given) {
    let _before = raw::numbers(libc::SYS_umask, [given.umask as usize, 0, 0]);
    // Before the limit of it may fall.
    if let Some(nice) = given.nice {
        let _set = set_nice(nice);
    }
    for (resource, [soft, hard]) in given.limits.into_iter().flatten() {
        if raw::limit(resource, Some(&[soft, hard])).is_err() {
            let [_, hard] = raw::limit(resource, None).unwrap_or([soft, hard]);
            let _set = raw::limit(resource, Some(&[soft.min(hard), hard]));
        }
    }
}
