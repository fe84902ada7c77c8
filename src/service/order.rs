//! Who starts after whom. Pure.
use std::collections::HashMap;

/// A circle among those that can be reached from `starts`: the names along it, the first once more
/// at its end. `of`: whom a service of this name depends on.
pub fn circle<'a>(
    starts: impl Iterator<Item = &'a str>,
    of: impl Fn(&str) -> Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    // Whether all behind a name has been seen; it is on the way until then.
    let mut seen: HashMap<&str, bool> = HashMap::new();
    for start in starts {
        let mut way: Vec<(&str, std::vec::IntoIter<&'a str>)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(name) = next.take() {
                match seen.get(name) {
                    Some(true) => {}
                    Some(false) => {
                        let way = way.iter().map(|(name, _)| *name);
                        let around = way.skip_while(|other| *other != name);
                        return Some(around.chain([name]).collect());
                    }
                    None => {
                        seen.insert(name, false);
                        way.push((name, of(name).into_iter()));
                    }
                }
            }
            let Some((name, rest)) = way.last_mut() else { break };
            next = rest.next();
            if next.is_none() {
                seen.insert(*name, true);
                way.pop();
            }
        }
    }
    None
}
