//! A map that forgets, so that nothing a machine can produce without end
//! (users, groups, paths) makes the recorder grow without end.
//!
//! Entries live in two generations. New and used ones are young; when the
//! young are too many they become the old, and the old before them are
//! dropped. What is asked for again and again so never leaves.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation: usize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// A cache of at least `generation` and at most twice as many entries.
    pub(super) fn new(generation: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation,
        }
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(10);
        for number in 0..1000 {
            cache.insert(number, number);
            assert_eq!(cache.get(&0), Some(&0));
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(&999), Some(&999));
        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn a_value_is_replaced_in_either_generation() {
        let mut cache = Cache::new(2);
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        cache.insert(3, 'c');
        cache.insert(1, 'd');
        assert_eq!(cache.get(&1), Some(&'d'));
        cache.remove(&1);
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&2), Some(&'b'));
    }
}
