//! A pidfd of the [`World`](crate::world::World).
use crate::fake::Shared;
use crate::world::Key;

/// A pidfd: a process for ever, and a descriptor that may be watched.
pub(crate) struct Handle {
    pub(crate) fd: u64,
    pub(crate) key: Key,
    pub(crate) world: Shared,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fd {} of key {}", self.fd, self.key)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Ok(mut world) = self.world.try_borrow_mut() {
            // A forked child may hold a copy until its exec: then the registration lives on.
            let held = world.procs.iter().any(|p| p.pre.is_some());
            if !(held && world.rng.odds(500)) {
                world.watched.retain(|(fd, ..)| *fd != self.fd);
            }
        }
    }
}
