//! What processes, tracers, init and strangers do while nobody looks.
use crate::proc::{Proc, State};
use crate::world::{INIT, Key, NAMES, PID_NAMESPACES, TICK_MS, UNLIMITED, World, note};
use opm::process::Exit;
use opm::process::mark::EnvMark;
use opm::process::stat::environ_value;
use opm::sys::Errno;
use std::rc::Rc;

impl World {
    /// One small thing happens, or nothing.
    pub(crate) fn step(&mut self) {
        if self.procs.is_empty() {
            return self.stranger();
        }
        let at = self.rng.below(self.procs.len());
        let p = &self.procs[at];
        let key = p.key;
        if Some(key) == self.daemon {
            return self.stranger();
        }
        if !p.is_alive() {
            return self.dead_step(at);
        }
        if p.pre.is_some() {
            if self.fault(|f| f.oom / 4) {
                return self.die(key, Exit::Signal(libc::SIGKILL));
            }
            return self.advance(key);
        }
        if p.stuck {
            if self.rng.odds(300) {
                self.procs[at].stuck = false;
            }
            return;
        }
        if p.doom.is_some() {
            return self.strike(key);
        }
        if p.state == State::Stopped || !self.wild {
            return;
        }
        self.live_step(at, key);
    }

    fn dead_step(&mut self, at: usize) {
        let key = self.procs[at].key;
        if self.procs[at].traced {
            if !self.wild || self.rng.odds(300) {
                self.procs[at].traced = false;
                self.sigchld |= Some(self.procs[at].parent) == self.daemon;
            }
            return;
        }
        let parent = self.procs[at].parent;
        if Some(parent) == self.daemon {
            return;
        }
        let of_init = self.at(parent).is_none();
        if !self.wild || self.rng.odds(if of_init { 400 } else { 200 }) {
            self.reap(key);
        }
    }

    fn live_step(&mut self, at: usize, key: Key) {
        let f = self.faults.clone();
        let ours = self.procs[at].tag.is_some();
        if !ours {
            if self.rng.odds(300) {
                self.die(key, Exit::Code(0));
            } else if self.rng.odds(300)
                && let Some(child) = self.fork(Some(key), key)
                && self.rng.odds(400)
            {
                self.setsid(child);
            }
            return;
        }
        let odds = |w: &mut Self, rate: u32| w.rng.odds(rate);
        if odds(self, f.exits) {
            let exit = self.rng.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(11)]);
            self.procs[at].traced = self.rng.odds(f.traced);
            self.die(key, exit);
        } else if odds(self, f.forks) {
            self.fork_some(key, key);
        } else if odds(self, f.escapes) {
            self.escape(key);
        } else if odds(self, f.clone_parent) {
            let parent = self.procs[at].parent;
            let parent = if self.at(parent).is_some() { parent } else { INIT };
            self.fork_some(key, parent);
        } else if odds(self, f.comets) {
            if self.fork(Some(key), key).is_some() {
                self.die(key, Exit::Code(0));
            }
        } else if odds(self, f.stops) {
            self.procs[at].state = State::Stopped;
        } else if odds(self, f.stuck) {
            self.procs[at].stuck = true;
        } else if odds(self, f.env_lost) {
            self.procs[at].env = Rc::new(Vec::new());
        } else if odds(self, f.limit_lost) {
            self.procs[at].limit = (3, 3);
            self.procs[at].limit_lost = true;
        } else if odds(self, f.pam) {
            self.procs[at].env = Rc::new(b"HOME=/\0".to_vec());
            self.procs[at].limit = UNLIMITED;
            self.procs[at].limit_lost = true;
        } else if self.features.namespace_handle && odds(self, f.leaves) {
            self.procs[at].namespace = self.new_namespace();
        } else if odds(self, f.enters) {
            self.enter_elsewhere(key);
        } else if odds(self, f.mute) {
            self.procs[at].mute = !self.procs[at].mute;
        } else if odds(self, f.nested) {
            self.nest(key);
        } else if odds(self, f.half_dead) {
            self.procs[at].half_dead = true;
        }
    }

    fn fork_some(&mut self, from: Key, parent: Key) {
        if let Some(child) = self.fork(Some(from), parent) {
            let stubborn = self.fault(|f| f.stubborn);
            if let Some(at) = self.at(child) {
                self.procs[at].stubborn = stubborn;
            }
        }
    }

    /// setsid, or a double fork with setsid.
    fn escape(&mut self, key: Key) {
        let Some(child) = self.fork(Some(key), key) else {
            return;
        };
        self.setsid(child);
        if self.rng.odds(500)
            && let Some(grandchild) = self.fork(Some(child), child)
        {
            if self.rng.odds(500) {
                self.setsid(grandchild);
            }
            self.die(child, Exit::Code(0));
        }
    }

    /// A service of a daemon of another home that runs inside of this one.
    fn nest(&mut self, key: Key) {
        let Some(at) = self.at(key) else { return };
        if self.procs[at].env.is_empty() || self.procs[at].limit_lost {
            return;
        }
        let ours = environ_value(&self.procs[at].env, "OPM_MARK").map(<[u8]>::to_vec);
        let Some(outer) = ours.filter(|mark| EnvMark::parse(mark).is_some()) else {
            return;
        };
        let Some(limit) = Self::foreign_limit(self.procs[at].limit.1) else {
            return;
        };
        let Some(child) = self.fork(Some(key), key) else {
            return;
        };
        self.setsid(child);
        let foreign = EnvMark { home_key: 0x0f0f_0f0f_0f0f, id: 0, generation: 5, pid: 3 };
        let mut env =
            format!("OPM_NAME=inner\0OPM_MARK={}\0OPM_OUTER=", foreign.value()).into_bytes();
        env.extend_from_slice(&outer);
        env.push(0);
        let at = self.procs.len() - 1;
        note!(self, "nested {}", self.procs[at].pid);
        self.procs[at].env = Rc::new(env);
        self.procs[at].limit = (limit, limit);
        // Its environment is the only mark of ours that it has.
        self.procs[at].limit_lost = true;
        self.procs[at].nested = true;
    }

    /// A child is put into a PID namespace that is there already, and its parent ends.
    fn enter_elsewhere(&mut self, key: Key) {
        let Some(child) = self.fork(Some(key), INIT) else { return };
        let Some(at) = self.at(child) else { return };
        self.procs[at].pid_namespace = PID_NAMESPACES[1];
        note!(self, "entered {}", self.procs[at].pid);
    }

    /// A stranger that copies what it sees of a limit, and changes it.
    fn forge(&mut self, at: usize) {
        let limits = self.procs.iter().filter(|p| p.tag.is_some()).map(|p| p.limit);
        let limits: Vec<_> = limits.filter(|limit| *limit != UNLIMITED).collect();
        if limits.is_empty() {
            return;
        }
        let (limit, _) = self.rng.pick(&limits);
        let other = [limit | 0x1ff_ffff, limit & !0xfff | 0x777, limit & !0x1ff_ffff];
        let is_other_user = self.rng.odds(500);
        let limit = if is_other_user && self.rng.odds(500) { limit } else { self.rng.pick(&other) };
        let p = &mut self.procs[at];
        p.limit = (limit, limit);
        p.uid = if is_other_user { 2000 } else { 1000 };
        note!(self, "forger {} {limit:x}", self.procs[at].pid);
    }

    fn stranger(&mut self) {
        if !self.fault(|f| f.strangers) {
            return;
        }
        let Some(key) = self.fork(None, INIT) else {
            return;
        };
        let at = self.procs.len() - 1;
        if self.rng.odds(20) {
            self.procs[at].cmdline = Rc::new(format!("/bin/{}\0x\0", NAMES[0]).into_bytes());
        }
        note!(self, "stranger {} key {key}", self.procs[at].pid);
        self.procs[at].mute = self.fault(|f| f.mute);
        if self.fault(|f| f.forged) {
            self.forge(at);
        }
    }

    /// From now on nothing goes wrong by itself, and what is not ours goes away.
    pub(crate) fn calm(&mut self) {
        self.wild = false;
        self.pids = self.pids.max(40);
        self.fuse = None;
        let daemon = self.daemon;
        for p in &mut self.procs {
            p.stuck = false;
            p.half_dead = false;
            p.mute = false;
        }
        let stays = |p: &&Proc| {
            let is_known = p.tag.is_some() && !p.is_unmarked() && !self.is_lost(p);
            Some(p.key) == daemon || p.pre.is_some() || is_known
        };
        let leaving = self.procs.iter().filter(|p| !stays(p)).map(|p| p.key);
        let leaving: Vec<Key> = leaving.collect();
        for key in leaving {
            self.die(key, Exit::Code(0));
        }
    }

    /// Everything that is under way gets done. Says whether anything happened.
    pub(crate) fn settle(&mut self) -> bool {
        let mut any = false;
        self.end_jobs();
        let keys: Vec<Key> = self.procs.iter().map(|p| p.key).collect();
        for key in keys {
            let Some(at) = self.at(key) else { continue };
            let p: &Proc = &self.procs[at];
            if p.pre.is_some() {
                self.advance(key);
                any = true;
            } else if p.doom.is_some() {
                self.strike(key);
                any = true;
            } else if !p.is_alive() && (p.traced || Some(p.parent) != self.daemon) {
                self.dead_step(at);
                any = true;
            }
        }
        any
    }

    /// Notes that this daemon has sent it the stop signal; whether it had before. Where something
    /// could not be read, it is asked again rather than not at all; and what was born while the
    /// daemon looked around may have been in the group already, or not. So may what was born in the
    /// same tick, before the pids wrapped around: a stated limit. What has left its time namespace
    /// may be in two trees, where nobody tells whose the number of the other was.
    pub(crate) fn has_had_term(&mut self, at: usize) -> bool {
        let (tick, wraps) = (self.now / TICK_MS, self.wraps);
        let p = &mut self.procs[at];
        let is_told = p.start < tick || p.wraps == wraps;
        let is_in_one = p.namespace.id == p.given;
        let exact = is_told
            && is_in_one
            && self.faults.descriptors == 0
            && self.faults.children_missing == 0;
        let daemon = self.daemon.filter(|_| exact && self.wild && p.key < self.turn_key);
        daemon.is_some() && std::mem::replace(&mut p.termed_by, daemon) == daemon
    }

    /// Out of descriptors or memory, by chance.
    pub(crate) fn shortage(&mut self) -> Option<Errno> {
        if !self.fault(|f| f.descriptors) {
            return None;
        }
        Some(self.rng.pick(&[Errno::MFILE, Errno::NFILE, Errno::NOMEM]))
    }
}
