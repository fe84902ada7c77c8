//! The kernel of one daemon, and what each of its calls begins with.
use crate::handle::Handle;
use crate::proc::Proc;
use crate::world::{Key, World, note};
use opm::process::Pid;
use opm::sys::{Errno, Result};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;

/// What a killed daemon unwinds with.
pub(crate) struct Killed;

pub(crate) type Shared = Rc<RefCell<World>>;

/// The kernel of one daemon.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) world: Shared,
    /// How many children of the daemon its list has shown.
    pub(crate) place: usize,
}

impl Fake {
    pub(crate) fn new(world: Shared) -> Self {
        Self { world, place: 0 }
    }

    /// Every call begins here: others run meanwhile, and the daemon may be killed.
    pub(crate) fn enter(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        if let Some(fuse) = world.fuse.as_mut() {
            *fuse = fuse.saturating_sub(1);
            if *fuse == 0 {
                world.fuse = None;
                drop(world);
                std::panic::resume_unwind(Box::new(Killed));
            }
        }
        if world.wild {
            while world.rng.odds(120) {
                world.step();
            }
        }
        world
    }

    pub(crate) fn handle(&self, world: &mut World, key: Key) -> Handle {
        world.fd += 1;
        Handle { fd: world.fd, key, world: self.world.clone() }
    }

    pub(crate) fn of<T>(&self, pid: Pid, read: impl Fn(&Proc) -> Result<T>) -> Result<T> {
        let mut world = self.enter();
        if let Some(errno) = world.shortage() {
            return Err(errno);
        }
        world.by_pid(pid).map_or(Err(Errno::NOENT), read)
    }
}

pub(crate) fn pause(world: &mut World, errno: Errno) -> Errno {
    note!(world, "fault: {errno:?}");
    errno
}
