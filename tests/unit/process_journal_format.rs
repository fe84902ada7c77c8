//! Of `opm::process::journal_format`.
use opm::process::journal_format::*;
use opm::process::{Exit, Identity, Namespace};

fn identity(n: u64) -> Identity {
    Identity { pid: 4_000 + n as i32, start_time: 1_000 + n, inode: 77 + n }
}

fn signature(generation: u64) -> Signature {
    let (leader, parent) = (identity(generation), identity(2));
    Signature { generation, leader, parent, namespace: Namespace { id: 6, inode: 5 } }
}

fn slot(state: &State, signature: &[u8]) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..HALF_BYTES].copy_from_slice(&state.encode());
    slot[SIGNATURE_OFFSET..SIGNATURE_OFFSET + SIGNATURE_BYTES].copy_from_slice(signature);
    slot
}

#[test]
fn both_halves_and_the_header_read_back() {
    let state = State {
        definition: 3,
        removed: true,
        goal_up: true,
        failed: Some(5),
        halted: true,
        generation: 9,
        emptied: 8,
        restarts: 7,
        deaths: 2,
        started_at: 1,
        exited_at: 2,
        restarted_at: 3,
        exit: Some(Exit::Signal(9)),
        by_opm: true,
        ready: true,
        main: Some(Identity { pid: 77, start_time: 8, inode: 9 }),
    };
    let slot = slot(&state, &signature(9).encode());
    assert_eq!(State::decode(&slot), Some(state));
    assert_eq!(Signature::in_slot(&slot), Some(signature(9)));
    for flag in 0..3 {
        let header = Header {
            machine: 1,
            boot: u128::MAX - 5,
            pid_namespace: 2,
            home_key: 3,
            home: (4, 5),
            daemon: identity(3),
            init: flag == 0,
            alone: flag == 1,
            incomplete: flag == 2,
            departed: std::array::from_fn(|n| n as u64),
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }
}

#[test]
fn each_flag_of_a_state_has_its_own_bit() {
    let set: [fn(&mut State); 9] = [
        |state| state.removed = true,
        |state| state.goal_up = true,
        |state| state.failed = Some(0),
        |state| state.halted = true,
        |state| state.by_opm = true,
        |state| state.ready = true,
        |state| state.exit = Some(Exit::Code(3)),
        |state| state.exit = Some(Exit::Unknown),
        |_| {},
    ];
    for set in set {
        let mut state = State::default();
        set(&mut state);
        assert_eq!(State::decode(&state.encode()), Some(state));
    }
}

#[test]
fn every_torn_signature_is_no_signature() {
    let (old, new) = (signature(4).encode(), signature(5).encode());
    for cut in 0..=SIGNATURE_BYTES {
        let torn = [&new[..cut], &old[cut..]].concat();
        let slot = slot(&State::default(), &torn);
        let read = Signature::in_slot(&slot).map(|s| s.generation);
        assert!(read.is_none() || cut == 0 || new[cut..] == old[cut..], "cut {cut}");
    }
}

#[test]
fn a_number_reads_back_and_a_torn_one_is_none() {
    assert_eq!(decode_number(&encode_number(77)), Some(77));
    let mut torn = encode_number(77);
    torn[3] = 1;
    assert_eq!(decode_number(&torn), None);
    assert_eq!(decode_number(&encode_number(1)[..12]), None);
    assert_eq!(decode_number(b""), None);
}

#[test]
fn a_slot_that_was_never_written_is_neither_state_nor_signature() {
    assert_eq!(State::decode(&[0; SLOT_BYTES]), None);
    assert_eq!(Signature::in_slot(&[0; SLOT_BYTES]), None);
}
