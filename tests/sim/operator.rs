//! Operators: what they ask for, often at once, often gone before the answer.
use crate::order::GROUP;
use crate::run::{Open, Sim, Want};
use crate::world::{NAMES, note};
use opm::daemon::ClientId;
use opm::service::signal::Signal;
use opm::service::spec::{Forgiven, Policy, Restart, Spec, StopReach};
use opm::service::units::{Delay, Span};
use opm::wire::{Existing, Request, Until};

impl Sim {
    pub(crate) fn some_request(&mut self) -> (ClientId, Request) {
        let (service, kind, extra, is_ordered) = {
            let world = &mut self.world.borrow_mut();
            let rng = &mut world.rng;
            (rng.below(NAMES.len()), rng.below(40), rng.next(), world.order.is_on)
        };
        let (is_grouped, is_changed) = {
            let order = &self.world.borrow().order;
            (order.is_grouped, order.is_changed)
        };
        let target = match extra % 12 {
            0 => "all".to_owned(),
            1 => format!("{}", extra / 16 % 3),
            3 if is_grouped => GROUP.to_owned(),
            2 => format!("{},{}", NAMES[service], NAMES[(service + 1) % 3]),
            _ => NAMES[service].to_owned(),
        };
        let request = match kind {
            0..=7 => self.definition(service, extra),
            8..=12 => Request::Start { target, force: extra & 64 != 0, wait: extra & 32 != 0 },
            13..=17 => Request::Stop { target, dependants: is_ordered && extra & 64 != 0 },
            18..=22 if is_ordered && extra & 64 != 0 => Request::Reload { target },
            18..=22 => Request::Restart { target },
            23 | 24 => Request::Remove { target },
            25 => Request::Signal {
                target,
                // Not the stop signal, which nobody gets twice.
                signal: if extra & 64 != 0 { 10 } else { 12 },
                tree: extra & 128 != 0,
            },
            26 => Request::Reset { target },
            27 => Request::List { usage: true },
            28 => Request::Info { target },
            29 | 30 => Request::Wait {
                target,
                until: [Until::Online, Until::Stopped, Until::Errored][extra as usize / 64 % 3],
                timeout_ms: Some(extra / 64 % 5_000),
            },
            31 => Request::Flush { target },
            33 | 36 if is_changed => self.adjustment(target, service, extra),
            32 | 33 => Request::Save,
            34 | 35 => Request::Restore { force: extra & 64 != 0 },
            36 => Request::Doctor,
            37 => Request::Leave { services: extra & 192 == 0 },
            38 => Request::Upgrade { binary: Some("/usr/bin/opm".to_owned()) },
            _ => Request::Events { follow: false },
        };
        self.open(request)
    }

    pub(crate) fn spec(&self, service: usize, extra: u64) -> Spec {
        let name = NAMES[service].to_owned();
        let policy = Policy {
            restart: [Restart::Always, Restart::Always, Restart::OnFailure, Restart::Never]
                [extra as usize / 16 % 4],
            max_restarts: Forgiven((extra / 64 % 4) as u32),
            min_uptime: Span { ms: extra / 256 % 3 * 500 },
            restart_delay: Delay { min_ms: 100, max_ms: 100 + extra / 1024 % 2 * 900 },
            stop_signal: Signal::TERM,
            stop_reach: if extra & 1 << 42 != 0 { StopReach::Leader } else { StopReach::Tree },
            stop_timeout: Span { ms: extra / 4096 % 3 * 1_000 },
            ..Policy::default()
        };
        let command = vec![format!("/bin/{name}"), "x".to_owned()];
        let mut spec = Spec { policy: policy.into(), ..Spec::new(name, command, "/".to_owned()) };
        self.put_in_order(&mut spec, service, extra);
        spec.care.pid_file =
            (extra & 1 << 43 != 0 && !self.world.borrow().order.is_on).then(|| "pid".to_owned());
        spec
    }

    pub(crate) fn definition(&mut self, service: usize, extra: u64) -> Request {
        let is_ordered = self.world.borrow().order.is_on;
        let mut specs = vec![self.spec(service, extra)];
        if is_ordered && extra & 1 << 58 != 0 {
            specs = vec![self.spec(1, extra), self.spec(2, extra)];
        }
        let filler = if self.big_env { 20_000 } else { 1 };
        let base = vec![
            ("PATH".to_owned(), "/bin".to_owned()),
            ("FILL".to_owned(), format!("{extra}").repeat(filler / 16 + 1)),
        ];
        let existing = match (extra & 1 << 40 != 0, extra & 1 << 41 != 0) {
            (false, _) => Existing::Refused,
            (true, false) => Existing::Same,
            (true, true) if is_ordered && extra & 1 << 57 != 0 => Existing::Roll,
            (true, true) => Existing::Replace,
        };
        Request::Define {
            specs,
            base: Box::new(base.into()),
            force: extra & 1 << 41 != 0,
            existing,
            wait: false,
        }
    }

    /// A new client sends a request; what it changes is wanted from now on.
    pub(crate) fn open(&mut self, request: Request) -> (ClientId, Request) {
        let client = self.next_client;
        self.next_client += 1;
        note!(self.world.borrow(), "ASK {client}: {request:?}");
        self.world.borrow_mut().order.note_asked(&request);
        let all = [0, 1, 2];
        let named = |target: &str| -> Vec<usize> {
            // Ids and patterns may name any.
            let listed = |n: &usize| target.split(',').any(|part| part == NAMES[*n]);
            match target.split(',').all(|part| NAMES.contains(&part)) {
                true => all.into_iter().filter(listed).collect(),
                false => all.to_vec(),
            }
        };
        let exact = |target: &str| target == "all" || NAMES.contains(&target);
        let untouched = [0, 1, 2].map(|service| !self.touched.contains(&service));
        let mut raises = None;
        match &request {
            Request::Define { specs, .. } => {
                for spec in specs {
                    let service = NAMES.iter().position(|n| *n == spec.name).unwrap_or(0);
                    raises = Some(client);
                    self.wish(service, Want::Any, client);
                    if spec.policy.restart != Restart::Always {
                        // Refused or not: from now on it may end by itself.
                        self.policies[service] = spec.policy.restart;
                    }
                    self.world.borrow_mut().ask_end(service);
                }
            }
            Request::Start { target, .. }
            | Request::Restart { target }
            | Request::Reload { target } => {
                let restarts = !matches!(request, Request::Start { .. });
                raises = Some(client);
                for service in named(target) {
                    self.wish(service, Want::Any, client);
                    if restarts {
                        self.world.borrow_mut().ask_end(service);
                    }
                    let sure = target.split(',').all(&exact);
                    if sure && !self.removing[service] {
                        self.world.borrow_mut().downs[service] = false;
                    }
                }
            }
            Request::Adjust { target, change, now } => {
                self.expect_adjusted(&named(target), client, change, *now);
            }
            Request::Stop { target, dependants } => {
                if *dependants {
                    for service in all {
                        self.wish(service, Want::Any, client);
                        self.world.borrow_mut().ask_end(service);
                    }
                }
                for service in named(target) {
                    let kept = matches!(self.wants[service], Want::Gone);
                    let want = if exact(target) && !kept { Want::Down } else { Want::Any };
                    // Nobody knows whether it is there at all.
                    let want = if self.ids[service].is_none() { Want::Any } else { want };
                    self.wish(service, want, client);
                    self.world.borrow_mut().downs[service] = true;
                    self.world.borrow_mut().ask_end(service);
                }
                if target.split(',').all(&exact) {
                    self.expect_order(&named(target), false, &untouched);
                }
            }
            Request::Remove { target } => {
                for service in named(target) {
                    self.ids[service] = None;
                    self.known[service] = false;
                    self.removed_by[service] = client;
                    self.removing[service] = true;
                    self.wish(service, Want::Any, client);
                    self.world.borrow_mut().downs[service] = true;
                    self.world.borrow_mut().ask_end(service);
                }
                if target.split(',').all(&exact) {
                    self.expect_order(&named(target), true, &untouched);
                }
            }
            Request::Signal { target, .. } => {
                for service in named(target) {
                    self.world.borrow_mut().ask_end(service);
                }
            }
            Request::Restore { .. } => {
                for service in all {
                    self.wish(service, Want::Any, client);
                    self.world.borrow_mut().ask_end(service);
                }
            }
            Request::Leave { services: true } => {
                for service in all {
                    self.world.borrow_mut().downs[service] = true;
                    self.wish(service, Want::Any, client);
                    self.world.borrow_mut().ask_end(service);
                }
            }
            _ => {}
        }
        self.expect_roll(&request, &untouched);
        self.expect_defined(client, &request);
        let what = format!("{request:?}");
        let what = what.chars().take(120).collect();
        self.clients.insert(client, Open { what, finals: 0, raises });
        (client, request)
    }

    pub(crate) fn wish(&mut self, service: usize, want: Want, number: u64) {
        self.wants[service] = want;
        self.raised[service] = number;
        self.touched.push(service);
        self.world.borrow_mut().order.forget(service);
    }

    /// Some clients do not wait for their answer.
    pub(crate) fn someone_leaves(&mut self) {
        let leaves = self.world.borrow_mut().rng.odds(60);
        let Some(client) = self.clients.keys().next().copied().filter(|_| leaves) else {
            return;
        };
        self.clients.remove(&client);
        if let Some(daemon) = self.daemon.as_mut() {
            daemon.forget_client(client);
        }
    }
}
