//! Maps and sets in the order of their keys, as vecmap vectors.
//!
//! A B-tree is 5 kB of code for every type that is kept in one, and the daemon keeps ten. Here
//! an insertion moves what comes after it: for all services that one daemon may have, less than
//! a system call costs. Never for values of more than a few words in thousands.
use std::mem;

/// A map. What is inserted in order goes to the end.
#[derive(Clone, Debug)]
pub struct VecMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for VecMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> VecMap<K, V> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn place(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(&key))
    }

    /// What was there before, if anything was.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(key) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.place(*key).ok().map(|at| self.0.remove(at).1)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(*key).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(*key).ok().map(|at| &mut self.0[at].1)
    }

    /// The value of `key`, made if it is missing.
    pub fn entry_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = self.place(key).unwrap_or_else(|at| {
            self.0.insert(at, (key, V::default()));
            at
        });
        &mut self.0[at].1
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.place(*key).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }
}

impl<K, V> IntoIterator for VecMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A set.
#[derive(Clone, Debug)]
pub struct VecSet<T>(Vec<T>);

impl<T> Default for VecSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Copy> VecSet<T> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether it was not there.
    pub fn insert(&mut self, value: T) -> bool {
        let place = self.0.binary_search(&value);
        if let Err(at) = place {
            self.0.insert(at, value);
        }
        place.is_err()
    }

    /// Whether it was there.
    pub fn remove(&mut self, value: &T) -> bool {
        let place = self.0.binary_search(value);
        if let Ok(at) = place {
            self.0.remove(at);
        }
        place.is_ok()
    }

    /// What is not below `value`, in order.
    pub fn not_below(&self, value: T) -> impl Iterator<Item = T> + '_ {
        let at = self.0.partition_point(|other| *other < value);
        self.0[at..].iter().copied()
    }

    pub fn contains(&self, value: &T) -> bool {
        self.0.binary_search(value).is_ok()
    }

    /// The least.
    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    /// Takes the least.
    pub fn pop_first(&mut self) -> Option<T> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Takes all of `other`, and leaves it empty.
    pub fn append(&mut self, other: &mut Self) {
        for value in other.0.drain(..) {
            self.insert(value);
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T> IntoIterator for VecSet<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let (mut map, mut model) = (VecMap::new(), BTreeMap::new());
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
        let (mut set, mut model) = (VecSet::new(), BTreeSet::new());
        for n in numbers(2).take(5_000) {
            let value = n % 97;
            match n / 97 % 5 {
                0 => assert_eq!(set.remove(&value), model.remove(&value)),
                1 => assert_eq!(set.pop_first(), model.pop_first()),
                2 => assert_eq!(set.contains(&value), model.contains(&value)),
                _ => assert_eq!(set.insert(value), model.insert(value)),
            }
            assert!(set.iter().eq(model.iter()) && set.first() == model.first());
        }
        let (mut other, mut others) = (VecSet::new(), BTreeSet::new());
        for n in numbers(3).take(50) {
            other.insert(n % 97);
            others.insert(n % 97);
        }
        set.append(&mut other);
        model.append(&mut others);
        assert!(other.is_empty() && set.into_iter().eq(model));
    }
}
