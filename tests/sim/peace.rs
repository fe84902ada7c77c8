//! Peace: nothing goes wrong any more, and everything must come to rest where it should.
use crate::run::Sim;
use opm::daemon::Daemon;
use opm::wire::{Reply, Request};

/// Rounds in which it must.
const ROUNDS: usize = 4_000;

impl Sim {
    /// A request in peace, in a turn of its own.
    pub(crate) fn ask_now(&mut self, request: Request) -> Result<(), String> {
        if self.daemon.is_none() {
            self.begin()?;
        }
        let asked = self.open(request);
        self.turn(vec![asked], true)
    }

    /// Lets everything come to rest, and looks whether it rests where it should.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            if self.daemon.is_none() {
                self.begin()?;
                continue;
            }
            let happened = self.world.borrow_mut().settle();
            let due = self.daemon.as_ref().and_then(Daemon::deadline);
            let (woken, now) = {
                let world = self.world.borrow();
                (world.sigchld || !world.wakes.is_empty() || world.has_word(), world.now)
            };
            if woken || due.is_some_and(|due| due <= now) {
                self.turn(Vec::new(), false)?;
                if self.world.borrow().now == now && !woken {
                    self.world.borrow_mut().now += 1;
                }
            } else if let Some(due) = due.filter(|_| !happened) {
                self.world.borrow_mut().now = due;
            } else if !happened {
                let rows = self.rows();
                let strays = self.strays();
                return self.check_rest(&rows, &strays);
            }
        }
        let deadline = self.daemon.as_ref().and_then(Daemon::deadline);
        let rows = self.rows();
        let states: Vec<_> = rows.iter().map(|row| (&row.name, row.status)).collect();
        Err(format!("does not come to rest: deadline {deadline:?}, {states:?}"))
    }

    pub(crate) fn rows(&mut self) -> Vec<opm::wire::Row> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Vec::new();
        };
        daemon.request(0, 0, Request::List { usage: false });
        match daemon.outbox.pop() {
            Some((0, Reply::List(rows))) => rows,
            _ => Vec::new(),
        }
    }

    /// What the daemon knows of marked processes without a record.
    fn strays(&mut self) -> Vec<String> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Vec::new();
        };
        daemon.request(0, 0, Request::Doctor);
        match daemon.outbox.pop() {
            Some((0, Reply::Doctor(findings))) => findings
                .into_iter()
                .filter(|finding| finding.subject == "stray")
                .map(|finding| finding.text)
                .collect(),
            _ => Vec::new(),
        }
    }
}
