//! Of `opm::daemon::ledger::load`.
use opm::daemon::ledger::definitions::Loaded;
use opm::daemon::ledger::load::Slot;
use opm::daemon::ledger::load::*;
use opm::process::journal_format::{Signature, State};
use opm::service::spec::Spec;
use opm::service::spec::{Definition, Id};
use std::rc::Rc;

fn lines(all: &[(u64, Id, &str)]) -> Loaded {
    let definition = |name: &str| Definition {
        spec: Spec::new(name.to_owned(), vec!["/bin/true".to_owned()], "/".to_owned()),
        base: Rc::default(),
    };
    let services = all.iter().map(|(line, id, name)| (*line, (*id, definition(name))));
    Loaded { services: services.collect(), ..Loaded::default() }
}

fn slot(definition: u64, removed: bool) -> Slot {
    let state = State { definition, removed, generation: 4, emptied: 4, ..State::default() };
    (Some(state), None)
}

fn named(slots: Vec<Slot>, loaded: Loaded) -> Vec<(Id, String)> {
    let newest = newest_of(&slots, loaded);
    let of = |(id, (_, definition)): (&Id, &(u64, Definition))| (*id, definition.spec.name.clone());
    newest.iter().map(of).collect()
}

#[test]
fn a_definition_whose_slot_could_not_be_written_is_not_lost() {
    let web = vec![(0, "web".to_owned())];
    let freed = vec![slot(5, true)];
    assert_eq!(named(freed, lines(&[(6, 0, "web")])), web);
    let not_even_freed = vec![slot(5, false)];
    let both = lines(&[(5, 0, "old"), (6, 0, "web")]);
    assert_eq!(named(not_even_freed, both), web);
    assert_eq!(named(vec![(None, None)], lines(&[(6, 0, "web")])), web);
}

#[test]
fn what_was_removed_stays_so_though_its_line_is_there() {
    assert_eq!(named(vec![slot(5, true)], lines(&[(5, 0, "web")])), []);
    let renewed = vec![slot(5, false), slot(6, false)];
    let both = lines(&[(5, 0, "web"), (6, 1, "web")]);
    assert_eq!(named(renewed, both), [(1, "web".to_owned())]);
}

#[test]
fn a_line_of_another_id_is_no_slots_definition() {
    let slots = vec![slot(5, false), slot(4, false)];
    assert_eq!(named(slots, lines(&[(5, 1, "web")])), [(1, "web".to_owned())]);
}

#[test]
fn only_what_signed_since_belongs_to_an_unrecorded_definition() {
    let signed = |generation| Some(Signature { generation, ..Signature::default() });
    let (state, _) = slot(5, true);
    let (past, none) = unrecorded(state, signed(4), 4);
    assert_eq!((past.goal_up, past.generation, none), (false, 4, None));
    let (live, some) = unrecorded(state, signed(7), 7);
    assert_eq!((live.goal_up, live.emptied, some), (true, 4, signed(7)));
}

/// An old copy of the journal is from before the definition: what it knew to live may live.
#[test]
fn who_was_not_confirmed_gone_when_it_was_defined_anew_is_not_past() {
    let signature = Some(Signature { generation: 4, ..Signature::default() });
    let written = State { generation: 4, emptied: 3, goal_up: true, ..slot(5, false).0.unwrap() };
    let (state, kept) = unrecorded(Some(written), signature, 4);
    assert_eq!((state.goal_up, state.emptied, kept), (true, 3, signature));
}
