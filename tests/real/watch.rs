//! The watcher: an observer that never asks opm. It reads the marks of all processes as fast as it
//! can and notes every service of which two incarnations live at once.
//!
//! A scan is no snapshot, so a double is noted only if the older one is still there after the
//! newer one has been seen. What lives shorter than a scan is the fixture's lock's business.
use crate::proc;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    doubles: Mutex<Vec<String>>,
}

pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// `KEY.ID.GENERATION.PID`, cut after the service and in whole.
fn mark(pid: i32) -> Option<(String, String)> {
    let mark = proc::variable(pid, "OPM_MARK")?;
    let parts: Vec<&str> = mark.split('.').collect();
    (parts.len() == 4).then(|| (format!("{}.{}", parts[0], parts[1]), mark.clone()))
}

fn scan(doubles: &mut Vec<String>) {
    let mut seen: HashMap<String, (String, i32)> = HashMap::new();
    for pid in proc::pids() {
        let Some((service, incarnation)) = mark(pid) else {
            continue;
        };
        let (earlier, other) = seen.entry(service).or_insert((incarnation.clone(), pid)).clone();
        // The earlier one is read again, after this one was seen alive.
        if earlier != incarnation && mark(other).is_some_and(|(_, again)| again == earlier) {
            doubles.push(format!("{earlier} (pid {other}) beside {incarnation} (pid {pid})"));
        }
    }
}

impl Watch {
    pub(crate) fn begin() -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                scan(&mut own.doubles.lock().unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { shared, thread: Mutex::new(Some(thread)) }
    }

    /// Ends it and says what it saw.
    pub(crate) fn end(&self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().expect("the watcher");
        }
        self.shared.doubles.lock().unwrap().clone()
    }
}

#[test]
fn the_watcher_sees_two_incarnations_of_one_service() {
    crate::namespace::isolated(here!(), |rig| {
        let mark = |generation| format!("00000000000000ab.0.{generation}.0000000001");
        let sleeper = |generation| {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").env("OPM_MARK", mark(generation));
            command.spawn().unwrap()
        };
        let mut both = [sleeper(1), sleeper(2)];
        let mut doubles = Vec::new();
        rig.until("both to have exec'd", || {
            scan(&mut doubles);
            (!doubles.is_empty()).then_some(())
        });
        for child in &mut both {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        rig.forgive_doubles();
    });
}

#[test]
fn the_lock_of_the_fixture_shows_a_descendant_that_outlives_its_leader() {
    crate::namespace::isolated(here!(), |rig| {
        let run = |ops: &str| {
            let mut command = std::process::Command::new(crate::namespace::fixture());
            command.arg(rig.lock("web")).args(ops.split_whitespace());
            assert!(command.status().unwrap().success());
        };
        run("child [ setsid note:escapee sleep ] exit:0");
        let escapee = rig.note("web", "escapee");
        run("exit:0");
        assert_eq!(rig.clashes().len(), 1);
        rig.kill(escapee, rustix::process::Signal::KILL);
        rig.until_gone(escapee);
        run("exit:0");
        assert_eq!(rig.clashes().len(), 1);
        rig.forgive_clashes();
    });
}
