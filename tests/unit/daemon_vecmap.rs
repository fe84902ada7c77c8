//! Of `opm::daemon::vecmap`.
use opm::daemon::vecmap::*;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that look random, the same in every run.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    })
}

#[test]
fn a_map_does_what_a_btree_does() {
    let (mut map, mut model) = (VecMap::default(), BTreeMap::new());
    for n in numbers(1).take(5_000) {
        let (key, value) = (n % 97, n);
        match n / 97 % 4 {
            0 => assert_eq!(map.remove(&key), model.remove(&key)),
            1 => assert_eq!(*map.entry_or_default(key), *model.entry(key).or_default()),
            2 => assert_eq!(map.get(&key), model.get(&key)),
            _ => assert_eq!(map.insert(key, value), model.insert(key, value)),
        }
        assert!(map.iter().eq(model.iter()));
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
    }
}

#[test]
fn a_set_does_what_a_btree_does() {
    let (mut set, mut model) = (VecSet::default(), BTreeSet::new());
    for n in numbers(2).take(5_000) {
        let value = n % 97;
        match n / 97 % 4 {
            0 => assert_eq!(set.remove(&value), model.remove(&value)),
            1 => assert_eq!(set.contains(&value), model.contains(&value)),
            _ => assert_eq!(set.insert(value), model.insert(value)),
        }
        assert!(set.iter().eq(model.iter()) && set.first() == model.first());
    }
    let (mut other, mut others) = (VecSet::default(), BTreeSet::new());
    for n in numbers(3).take(50) {
        other.insert(n % 97);
        others.insert(n % 97);
    }
    set.append(&mut other);
    model.append(&mut others);
    assert!(other.is_empty() && set.into_iter().eq(model));
}
