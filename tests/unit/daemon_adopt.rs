//! What decides whose records count.
use opm::daemon::adopt::{Place, is_incomplete, valid_slots};
use opm::daemon::ledger::load::Found;
use opm::process::Identity;
use opm::process::journal_format::{Header, Signature, State};
use opm::wire::Failure;

fn place() -> Place {
    Place {
        home: "/home/u/.opm".to_owned(),
        device_inode: (1, 2),
        machine: 3,
        boot: 4,
        pid_namespace: 5,
        key: None,
        inherited_limit: u64::MAX,
        outer: None,
        forgets_elsewhere: false,
        is_namespace_gone: |_| false,
    }
}

/// A journal with one incarnation that is not known to be gone.
fn journal(change: impl Fn(&mut Header)) -> Found {
    let (machine, boot, pid_namespace) = (3, 4, 5);
    let daemon = Identity::default();
    let mut header = Header {
        machine,
        boot,
        pid_namespace,
        home_key: 6,
        home: (1, 2),
        daemon,
        init: false,
        alone: false,
        incomplete: false,
        departed: [0; 8],
    };
    change(&mut header);
    let signature = Signature { generation: 2, ..Signature::default() };
    let state = State { definition: 1, emptied: 1, ..State::default() };
    Found { header: Some(header), slots: vec![(Some(state), Some(signature))] }
}

#[test]
fn records_of_this_boot_and_namespace_count() {
    assert_eq!(valid_slots(&journal(|_| ()), &place()), Ok(true));
}

/// An old copy of the journal may have been made between a fork and what its child signed then.
#[test]
fn what_was_given_and_neither_signed_nor_ended_may_live() {
    let with = |generation, emptied| {
        let mut found = journal(|_| ());
        let state = State { definition: 2, generation, emptied, ..State::default() };
        found.slots.push((Some(state), Some(Signature { generation: 3, ..Signature::default() })));
        found
    };
    assert!(!is_incomplete(&with(3, 1), 3), "it lives, and signed");
    assert!(!is_incomplete(&with(4, 4), 4), "it ended unsigned");
    assert!(is_incomplete(&with(4, 3), 4), "the last one given");
    let mut later = with(4, 3);
    let signature = Signature { generation: 5, ..Signature::default() };
    later.slots.push((Some(State::default()), Some(signature)));
    assert!(is_incomplete(&later, 5), "a later one signed before it");
    assert!(is_incomplete(&with(3, 1), 4), "given, and on no record");
}

#[test]
fn live_records_of_another_machine_or_namespace_are_refused() {
    let elsewhere = |header: &mut Header| (header.machine, header.boot) = (9, 9);
    for found in [journal(elsewhere), journal(|h| h.pid_namespace = 9)] {
        let Failure { code, text } = valid_slots(&found, &place()).unwrap_err();
        assert_eq!(code, opm::wire::code::REFUSED, "{text}");
        let place = Place { forgets_elsewhere: true, ..place() };
        assert_eq!(valid_slots(&found, &place), Ok(false), "the operator's word");
    }
    // It is no word about what is here.
    let place = Place { forgets_elsewhere: true, ..place() };
    assert_eq!(valid_slots(&journal(|_| ()), &place), Ok(true));
}

/// Its host name was changed, or its /etc/machine-id written, since the last daemon began.
#[test]
fn a_machine_that_is_called_otherwise_is_the_same_in_the_same_boot() {
    let found = journal(|h| h.machine = 9);
    assert_eq!(valid_slots(&found, &place()), Ok(true));
}

#[test]
fn a_namespace_that_is_gone_refuses_nothing() {
    let place = Place { is_namespace_gone: |_| true, ..place() };
    assert_eq!(valid_slots(&journal(|h| h.pid_namespace = 9), &place), Ok(false));
}

#[test]
fn records_of_another_boot_or_a_copied_home_name_nobody() {
    assert_eq!(valid_slots(&journal(|h| h.boot = 9), &place()), Ok(false));
    assert_eq!(valid_slots(&journal(|h| h.home = (1, 9)), &place()), Ok(false));
}
