//! A child's life between fork and exec, in pieces, as the real one lives it.
use crate::proc::{Pre, Proc};
use crate::world::{Key, NAMES, World, note};
use opm::process::stat::environ_value;
use opm::process::{Exit, Identity, Namespace};
use opm::sys::{Errno, Launch, Stage};
use std::rc::Rc;

/// The value of a variable; empty: there is none.
pub(crate) fn environ_text(env: &[u8], name: &str) -> String {
    let value = environ_value(env, name).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

impl World {
    /// The next piece of a child's life before its program.
    pub(crate) fn advance(&mut self, key: Key) {
        let Some(at) = self.at(key) else { return };
        let Some(mut pre) = self.procs[at].pre.take() else {
            return;
        };
        let stage = pre.stage;
        pre.stage += 1;
        let fails = pre.fails;
        let is_at = |wanted: Stage| fails.is_some_and(|(stage, _)| stage == wanted);
        match stage {
            0 => {
                self.setsid(key);
                self.procs[at].pre = Some(pre);
            }
            1 if is_at(Stage::Sign) => self.report_failure(at, pre),
            1 => {
                self.sign(at, &mut pre);
                self.procs[at].pre = Some(pre);
            }
            2 if is_at(Stage::Setup) => self.report_failure(at, pre),
            2 => {
                if let Some(limit) = pre.limit {
                    self.procs[at].limit = (limit, limit);
                }
                self.procs[at].pre = Some(pre);
            }
            3 if fails.is_some() => self.report_failure(at, pre),
            3 => self.exec(at, pre),
            // It reported, and ends.
            _ => {
                self.procs[at].pre = Some(pre);
                self.die(key, Exit::Code(127));
            }
        }
    }

    fn report_failure(&mut self, at: usize, mut pre: Pre) {
        pre.stage = 9;
        let (stage, errno) = pre.fails.unwrap_or((Stage::Exec, Errno::NOENT));
        let launch = pre.launch;
        self.procs[at].pre = Some(pre);
        self.decide_launch(launch, Launch::Failed(stage, errno));
    }

    fn sign(&mut self, at: usize, pre: &mut Pre) {
        let Some(offset) = pre.offset else { return };
        let p = &self.procs[at];
        pre.signature.leader = Identity {
            pid: p.pid,
            start_time: p.start,
            inode: if self.features.pidfd_inode { p.key } else { 0 },
        };
        if self.features.time_namespace {
            let id = if self.features.namespace_handle { p.namespace.id } else { 0 };
            pre.signature.namespace = Namespace { id, ..p.namespace };
        }
        let text = format!("{:010}", p.pid);
        if let Some(mark) = pre.env.windows(9).position(|w| w == b"OPM_MARK=") {
            let end = pre.env[mark..].iter().position(|b| *b == 0).unwrap_or(0) + mark;
            pre.env[end - 10..end].copy_from_slice(text.as_bytes());
        }
        let generation = pre.signature.generation;
        note!(self, "sign {} generation {generation}", p.pid);
        let on_record = self.files.names.get("journal") == Some(&pre.file);
        if on_record && !self.used.insert(generation) {
            self.violate(format!("generation {generation} is used twice"));
        }
        let bytes = pre.signature.encode();
        if let Some(data) = self.files.data.get_mut(&pre.file) {
            let end = offset as usize + bytes.len();
            data.resize(data.len().max(end), 0);
            data[offset as usize..end].copy_from_slice(&bytes);
        }
    }

    fn exec(&mut self, at: usize, pre: Pre) {
        let p = &mut self.procs[at];
        p.leader = true;
        p.env = Rc::new(pre.env);
        p.cmdline = Rc::new(pre.cmdline);
        p.cwd = pre.cwd.into();
        p.stubborn = false;
        let (key, pid, tag, ended) = (p.key, p.pid, p.tag, p.ended);
        self.procs[at].stubborn = self.fault(|f| f.stubborn);
        let Some(tag) = tag else { return };
        note!(self, "exec {pid} of {} generation {}", NAMES[tag.service], tag.generation);
        self.execs.push((tag.service, pid));
        self.asked[tag.service] = self.downs[tag.service] || ended;
        self.note_life(at);
        let others = |p: &&Proc| {
            let older = p.tag.is_some_and(|t| t.service == tag.service && t != tag);
            older && p.is_alive() && p.key != key
        };
        let others: Vec<Proc> = self.procs.iter().filter(others).cloned().collect();
        for other in others {
            if self.is_excused(&other) {
                self.excused += 1;
                continue;
            }
            let old = other.tag.map_or(0, |t| t.generation);
            self.violate(format!(
                "THE LAW: {} generation {} execs while pid {} of generation {old} lives \
                 (limit lost {}, environment {} bytes, nested {})",
                NAMES[tag.service],
                tag.generation,
                other.pid,
                other.limit_lost,
                other.env.len(),
                other.nested,
            ));
        }
        self.decide_launch(pre.launch, Launch::Done);
    }
}
