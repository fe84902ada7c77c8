//! Who starts after whom.
use opm::service::order::circle;

fn found(graph: &[(&str, &str)]) -> Option<String> {
    let all: Vec<(String, Vec<String>)> = graph
        .iter()
        .map(|(name, of)| ((*name).to_owned(), of.split_whitespace().map(str::to_owned).collect()))
        .collect();
    let of = |name: &str| all.iter().find(|(n, _)| n == name).map_or(&[][..], |(_, of)| of);
    circle(all.iter().map(|(name, _)| name.as_str()), of).map(|around| around.join(" "))
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
        &names[(at + 1).min(names.len())..(at + 2).min(names.len())]
    };
    assert_eq!(circle(["0"].into_iter(), next), None);
}
