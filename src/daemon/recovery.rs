//! A home that was lost whole, its key too: what still bears the key tells it.
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::environ_value;
use crate::service::environment::HOME_VARIABLE;
use crate::sys::Kernel;
use std::collections::{BTreeMap, BTreeSet};

/// The key of the home that was at this path before, as its services have it: in full if one says
/// in its environment that it is of a home here, else as far as their limits say.
///
/// Nothing is lost whose daemon lives: it goes after its home, which was moved or removed.
///
/// Only processes of our own user are asked: nobody else can stop our services from starting.
pub(crate) fn lost_key<K: Kernel>(kernel: &mut K, path: &str) -> Option<u64> {
    let mut pids = Vec::new();
    let (mut lost, mut held) = (BTreeMap::default(), BTreeSet::default());
    kernel.processes(0, &mut pids).ok()?;
    while let Some(last) = pids.last().copied() {
        for pid in pids.drain(..) {
            let Ok(limit) = kernel.locks_limit(pid) else { continue };
            let (daemons, lost_home) =
                (LimitMark::daemons_home(limit), LimitMark::lost_home(limit, path));
            let Some(home) = daemons.or(lost_home) else { continue };
            let own = kernel.own_uid();
            if !kernel.uids(pid).is_ok_and(|uids| uids.contains(&own)) {
                continue;
            }
            if daemons.is_some() {
                let is_alive = kernel.stat(pid).is_ok_and(|stat| !stat.is_zombie());
                if is_alive && pid != kernel.own_identity().pid {
                    held.insert(home);
                }
                continue;
            }
            // A number that its parent has yet to wait for keeps nobody from anything.
            if kernel.pidfd_open(pid).is_ok_and(|held| kernel.is_dead(&held) == Ok(true)) {
                continue;
            }
            let environ = kernel.environ(pid).unwrap_or_default();
            let said = environ_value(&environ, HOME_VARIABLE);
            if said.is_some_and(|said| said != path.as_bytes()) {
                continue;
            }
            let mark = said.and_then(|_| EnvMark::parse(environ_value(&environ, MARK_VARIABLE)?));
            match mark.map(|mark| mark.home_key) {
                Some(key) if LimitMark::is_home(home, key) => drop(lost.insert(home, Some(key))),
                Some(_) => {}
                // It lost its environment.
                None => drop(lost.entry(home).or_default()),
            }
        }
        kernel.processes(last, &mut pids).ok()?;
    }
    let free = || lost.iter().filter(|(home, _)| !held.contains(home));
    let told = free().find_map(|(_, key)| *key);
    told.or_else(|| {
        let (home, _) = free().next()?;
        Some(LimitMark::key_of_lost(kernel.random(), *home))
    })
}
