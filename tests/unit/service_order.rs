//! Who starts after whom.
use opm::service::order::circle;

fn found(graph: &[(&str, &str)]) -> Option<String> {
    let of = |name: &str| {
        let its = graph.iter().find(|(of, _)| *of == name).map_or("", |(_, names)| names);
        its.split_whitespace().collect()
    };
    circle(graph.iter().map(|(name, _)| *name), of).map(|around| around.join(" "))
}

#[test]
fn a_circle_is_told_by_the_names_along_it() {
    assert_eq!(found(&[("a", "b c"), ("b", "d"), ("c", "d"), ("d", "nobody")]), None);
    assert_eq!(found(&[("a", "a")]).as_deref(), Some("a a"));
    assert_eq!(
        found(&[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")]).as_deref(),
        Some("a b c a")
    );
}

#[test]
fn a_long_chain_takes_no_stack() {
    let names: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let next = |name: &str| {
        let at: usize = name.parse().unwrap();
        names.get(at + 1).into_iter().map(String::as_str).collect()
    };
    assert_eq!(circle(["0"].into_iter(), next), None);
}
