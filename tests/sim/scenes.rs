//! What a seed found once, played again move by move: chance would need too many seeds for it.
use crate::faults::Faults;
use crate::run::Sim;
use crate::world::{Key, NAMES, UNLIMITED};
use opm::process::Exit;
use opm::sys::Features;
use opm::wire::Request;

const ALPHA: usize = 0;
const BETA: usize = 1;
/// A definition that is always restarted.
const RESTARTED: u64 = 3 * 64;

/// Nothing goes wrong here but what the scene does.
fn scene() -> Sim {
    let sim = Sim::new(1, false);
    {
        let mut world = sim.world.borrow_mut();
        (world.features, world.faults) = (Features::ALL, Faults::default());
        world.counts_forks = true;
        world.calm();
    }
    sim
}

/// Asks for its start. Gives the child.
fn launch(sim: &mut Sim, service: usize) -> Result<Key, String> {
    let request = sim.definition(service, RESTARTED);
    sim.ask_now(request)?;
    let world = sim.world.borrow();
    let child = world.live_of(service).next().map(|p| p.key);
    child.ok_or_else(|| "it was not forked".to_owned())
}

fn exec(sim: &Sim, child: Key) {
    for _ in 0..4 {
        sim.world.borrow_mut().advance(child);
    }
}

/// While /proc is read for what alpha has left, beta ends, and what alpha has left makes itself a
/// time namespace, which gets the number of beta's.
fn namespace_changes_hands() -> Result<(), String> {
    let mut sim = scene();
    let (alpha, beta) = (launch(&mut sim, ALPHA)?, launch(&mut sim, BETA)?);
    sim.rest()?;
    let left = sim.world.borrow_mut().fork(Some(alpha), alpha);
    sim.death();
    sim.begin()?;
    sim.rest()?;
    {
        let mut world = sim.world.borrow_mut();
        world.heir = left.map(|left| (left, beta));
        world.die(alpha, Exit::Code(0));
    }
    sim.rest()?;
    assert_eq!(sim.world.borrow().heir, None, "nobody looked");
    Ok(())
}

#[test]
fn a_namespace_that_ends_in_a_pass_proves_nothing() {
    assert_eq!(namespace_changes_hands(), Ok(()));
}

#[cfg(debug_assertions)]
#[test]
fn believing_the_owner_before_is_caught() {
    opm::mutant::set_mutant("believe_owners");
    let text = namespace_changes_hands().unwrap_err();
    assert!(text.starts_with("THE LAW: alpha"), "{text}");
}

/// Both are launched in one turn, in which the daemon may die; alpha's child has signed, beta's not
/// yet: a copy of the journal from then is put back while there is no daemon, and nothing but the
/// limit tells beta's leader. The next daemon may die, too. `fuses`: at which of its calls each.
fn old_copy_is_put_back(fuses: [u64; 2]) -> Result<(), String> {
    let mut sim = scene();
    sim.world.borrow_mut().features.time_namespace = false;
    sim.begin()?;
    let asked = [BETA, ALPHA].map(|service| {
        let request = sim.definition(service, RESTARTED);
        sim.open(request)
    });
    sim.world.borrow_mut().fuse = Some(fuses[0]);
    sim.turn(asked.into(), true)?;
    if sim.daemon.is_some() {
        sim.death();
    }
    let children = [BETA, ALPHA].map(|of| sim.world.borrow().live_of(of).next().map(|p| p.key));
    let [Some(beta), Some(alpha)] = children else { return Ok(()) };
    exec(&sim, alpha);
    let copy = sim.world.borrow().files.read("journal");
    exec(&sim, beta);
    {
        let mut world = sim.world.borrow_mut();
        world.files.replace("journal", copy);
        if let Some(at) = world.at(beta) {
            world.procs[at].env = Default::default();
        }
        world.asked = [true; 3];
        world.fuse = Some(fuses[1]);
    }
    sim.unsure = [true; 3];
    sim.wants = [crate::run::Want::Any; 3];
    sim.begin()?;
    sim.world.borrow_mut().fuse = None;
    sim.rest()?;
    sim.ask_now(Request::Start { target: "all".to_owned(), force: true, wait: false })?;
    sim.rest()
}

#[test]
fn what_an_old_copy_of_the_journal_does_not_know_keeps_its_place() {
    const NEVER: u64 = 1_000;
    for fuse in 1..200 {
        for fuses in [[fuse, NEVER], [NEVER, fuse]] {
            assert_eq!(old_copy_is_put_back(fuses), Ok(()), "fuses {fuses:?}");
        }
    }
}

/// An old copy of the journal is put back in which alpha lives: of beta, which has the number of
/// alpha's time namespace since, a process is left that has lost its marks.
fn old_copy_has_the_number_of_a_namespace() -> Result<(), String> {
    let ask = |sim: &mut Sim, service: usize, is_up: bool| {
        let target = NAMES[service].to_owned();
        sim.ask_now(match is_up {
            true => Request::Start { target, force: true, wait: false },
            false => Request::Stop { target, dependants: false },
        })?;
        sim.rest()
    };
    let mut sim = scene();
    sim.world.borrow_mut().features.namespace_handle = false;
    sim.begin()?;
    launch(&mut sim, ALPHA)?;
    launch(&mut sim, BETA)?;
    sim.rest()?;
    ask(&mut sim, BETA, false)?;
    let copy = sim.world.borrow().files.read("journal");
    ask(&mut sim, ALPHA, false)?;
    ask(&mut sim, BETA, true)?;
    sim.death();
    {
        let mut world = sim.world.borrow_mut();
        let leader = world.live_of(BETA).next().map(|p| p.key).ok_or("beta does not live")?;
        let left = world.fork(Some(leader), leader).and_then(|key| world.at(key));
        let left = &mut world.procs[left.ok_or("it was not forked")?];
        left.env = Default::default();
        (left.limit, left.limit_lost, left.stuck) = (UNLIMITED, true, true);
        world.die(leader, Exit::Code(0));
        world.files.replace("journal", copy);
        world.asked = [true; 3];
    }
    sim.unsure = [true; 3];
    sim.wants = [crate::run::Want::Any; 3];
    sim.begin()?;
    sim.ask_now(Request::Start { target: NAMES[BETA].to_owned(), force: true, wait: false })?;
    let child = sim.world.borrow().procs.iter().find(|p| p.pre.is_some()).map(|p| p.key);
    child.into_iter().for_each(|child| exec(&sim, child));
    sim.world.borrow_mut().procs.iter_mut().for_each(|p| p.stuck = false);
    sim.rest()
}

#[test]
fn the_number_of_a_namespace_in_an_old_copy_of_the_journal_tells_no_owner() {
    assert_eq!(old_copy_has_the_number_of_a_namespace(), Ok(()));
}

/// The definitions are lost while something is left of beta and of alpha, which began later and has
/// the first slot; beta is defined anew, and the daemon dies.
fn a_slot_changes_hands() -> Result<(), String> {
    let mut sim = scene();
    sim.begin()?;
    for service in [ALPHA, BETA] {
        launch(&mut sim, service)?;
        sim.rest()?;
    }
    sim.ask_now(Request::Restart { target: NAMES[ALPHA].to_owned() })?;
    sim.rest()?;
    sim.death();
    for service in [ALPHA, BETA] {
        let mut world = sim.world.borrow_mut();
        let leader = world.live_of(service).next().map(|p| p.key).ok_or("it does not live")?;
        let left = world.fork(Some(leader), leader).and_then(|key| world.at(key));
        world.procs[left.ok_or("it was not forked")?].stuck = true;
        world.die(leader, Exit::Code(0));
    }
    sim.world.borrow_mut().files.replace("services", None);
    (sim.ids, sim.known) = ([None; 3], [false; 3]);
    sim.unsure = [true; 3];
    sim.wants = [crate::run::Want::Any; 3];
    sim.begin()?;
    for service in [BETA, ALPHA] {
        sim.world.borrow_mut().asked = [true; 3];
        let request = sim.definition(service, RESTARTED);
        sim.ask_now(request)?;
        let children = |sim: &Sim| {
            let world = sim.world.borrow();
            world.procs.iter().filter(|p| p.pre.is_some()).map(|p| p.key).collect::<Vec<_>>()
        };
        children(&sim).into_iter().for_each(|child| exec(&sim, child));
        let broken = sim.world.borrow().broken.clone();
        broken.map_or(Ok(()), Err)?;
        sim.death();
        sim.begin()?;
    }
    sim.world.borrow_mut().procs.iter_mut().for_each(|p| p.stuck = false);
    sim.rest()
}

#[test]
fn a_slot_that_may_be_in_use_is_not_given_to_another_service() {
    assert_eq!(a_slot_changes_hands(), Ok(()));
}

/// A child is killed while it still shares the daemon's table: its end of the launch pipe is open
/// in the daemon, so that nothing is said there. Gives what the daemon has then.
fn killed_at_once() -> Result<Vec<opm::wire::Row>, String> {
    let mut sim = scene();
    sim.begin()?;
    let child = launch(&mut sim, ALPHA)?;
    sim.world.borrow_mut().die(child, Exit::Signal(libc::SIGKILL));
    sim.turn(Vec::new(), true)?;
    sim.turn(Vec::new(), true)?;
    Ok(sim.rows())
}

#[test]
fn a_child_that_is_killed_before_anything_else_has_not_run_its_program() {
    let rows = killed_at_once().unwrap();
    assert!(rows.is_empty(), "what never ran is forgotten: {rows:?}");
}
