//! Who knows whom, more closely than by rooms: what single rooms of the daemon may import, no
//! circle by imports or by methods, no object that holds everything.
use super::{Source, report, sources, words};
use std::collections::{BTreeMap, BTreeSet};

/// What may be imported inside of a room of the daemon, by the whole path of the item.
const INNER: &[(&str, &[&str])] = &[
    // The law knows processes, and no request, event, policy or monitor.
    (
        "src/daemon/trees/",
        &[
            "daemon::trees",
            "service::machine::Generation",
            "service::machine::Time",
            "service::spec::Id",
            "service::spec::StopReach",
            "process",
            "sys",
        ],
    ),
    // A monitor advises: it can reach no tree, and so no process.
    (
        "src/daemon/monitors/",
        &["daemon::monitors", "daemon::service", "daemon::timers", "process", "service", "sys"],
    ),
];

/// Where the turn is turned: only there, and where requests are taken up, is `Daemon` implemented.
const TURN: &[&str] =
    &["src/daemon/mod.rs", "src/daemon/learn.rs", "src/daemon/adopt.rs", "src/daemon/requests/"];
/// Files that implement it besides, today.
const BESIDE_THE_TURN: &[&str] = &[
    "src/daemon/departure.rs",
    "src/daemon/events.rs",
    "src/daemon/ledger/load.rs",
    "src/daemon/server/role.rs",
];

/// Rooms without a circle, neither of imports nor of methods. More are to follow.
const STRAIGHT: &[&str] = &["src/daemon/trees/", "src/daemon/monitors/"];

const FIELDS_MAX: usize = 16;
/// Structs that have more, today.
const WIDE_STRUCTS: &[(&str, usize)] = &[("src/wire/mod.rs:Info", 19), ("src/wire/mod.rs:Row", 18)];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// `src/daemon/trees/mod.rs` is `daemon::trees`.
fn module_of(path: &str) -> String {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.trim_end_matches("/mod").replace('/', "::")
}

/// The paths of all items that a file imports or names, from the crate's root.
fn paths(source: &Source) -> BTreeSet<String> {
    let module = module_of(&source.path);
    let parts: Vec<&str> = module.split("::").collect();
    let mut found = BTreeSet::new();
    // What tests use binds nobody.
    let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].chars().next_back();
        if before.is_none_or(|c| " })".contains(c)) {
            let text = statement[at + 4..].replace(' ', "");
            expand("", &text, &mut found);
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let is_path = |c: &char| c.is_alphanumeric() || "_:".contains(*c);
            let path: String = code[at..].chars().take_while(is_path).collect();
            let before = code[..at].chars().next_back();
            // What ends in `::` goes on in braces, or is all of a module inside of this file.
            if before.is_none_or(|c| !is_path(&c)) && !path.ends_with(':') {
                found.insert(path);
            }
        }
    }
    let absolute = |path: &String| -> Option<String> {
        let mut rest: Vec<&str> = path.split("::").collect();
        let mut base = parts.clone();
        if rest.first() == Some(&"crate") {
            rest.remove(0);
            return Some(rest.join("::"));
        }
        let is_child = rest.first().is_some_and(|first| !["super", "self"].contains(first));
        while rest.first() == Some(&"super") {
            rest.remove(0);
            base.pop();
        }
        if rest.first() == Some(&"self") {
            rest.remove(0);
        }
        (!is_child || source.path.ends_with("/mod.rs")).then(|| [base, rest].concat().join("::"))
    };
    found.iter().filter_map(absolute).collect()
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, text: &str, out: &mut BTreeSet<String>) {
    let Some(open) = text.find('{') else {
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let path = format!("{prefix}{item}");
            if path != "super::*" {
                out.insert(path.trim_end_matches("::self").to_owned());
            }
        }
        return;
    };
    let (mut level, mut from) = (0, 0);
    let head = &text[..open];
    if let Some((alone, last)) = head.rsplit_once(',') {
        expand(prefix, alone, out);
        return expand(prefix, &[last, &text[open..]].concat(), out);
    }
    let inner = format!("{prefix}{head}");
    for (at, c) in text[open..].char_indices() {
        level += i32::from(c == '{') - i32::from(c == '}');
        if c == '{' && level == 1 {
            from = at + 1;
        }
        if (c == ',' && level == 1) || level == 0 {
            expand(&inner, &text[open + from..open + at], out);
            from = at + 1;
        }
        if level == 0 {
            return expand(prefix, text[open + at + 1..].trim_start_matches(','), out);
        }
    }
}

/// The strongly connected parts of more than one file.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reach = |from: &String| -> BTreeSet<&String> {
        let mut seen = BTreeSet::new();
        let mut queue: Vec<&String> = graph.get(from).into_iter().flatten().collect();
        while let Some(next) = queue.pop() {
            if seen.insert(next) {
                queue.extend(graph.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|file| (file, reach(file))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, there) in &reached {
        let back = |other: &&&String| reached.get(**other).is_some_and(|r| r.contains(file));
        let circle: Vec<String> = there.iter().filter(back).map(|f| (*f).clone()).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// The files of circles that are in a room that has none.
fn within_straight(circles: Vec<Vec<String>>) -> Vec<String> {
    let is_straight = |file: &String| STRAIGHT.iter().any(|room| file.starts_with(room));
    circles.into_iter().flatten().filter(is_straight).collect()
}

/// What is found and not listed, and what is listed and not found.
fn differences(found: &[String], listed: &[&str]) -> Vec<String> {
    let new = found.iter().filter(|name| !listed.contains(&name.as_str()));
    let past = listed.iter().filter(|name| !found.contains(&(**name).to_owned()));
    let past = past.map(|name| format!("{name}: no longer so, take it off the list"));
    new.cloned().chain(past).collect()
}

#[test]
fn rooms_of_the_daemon_import_only_whom_they_may() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = INNER.iter().find(|(room, _)| source.path.starts_with(room))
        else {
            continue;
        };
        let is_allowed = |path: &String| {
            let is = |of: &&&str| path == **of || path.starts_with(&format!("{of}::"));
            path.starts_with("mutant") || allowed.iter().any(|of| is(&of))
        };
        let rooms = ["service", "process", "wire", "sys", "daemon", "run", "init", "cli"];
        let is_ours = |path: &&String| rooms.contains(&path.split("::").next().unwrap_or_default());
        let paths = paths(&source);
        let wrong = paths.iter().filter(is_ours).filter(|path| !is_allowed(path));
        broken.extend(wrong.map(|path| format!("{} imports {path}", source.path)));
    }
    report("imports across rooms of the daemon", &broken);
}

#[test]
fn no_files_import_each_other() {
    let all: Vec<Source> =
        sources().into_iter().filter(|source| source.path.starts_with("src/")).collect();
    let files: BTreeMap<String, String> =
        all.iter().map(|source| (module_of(&source.path), source.path.clone())).collect();
    let mut graph = Graph::new();
    for source in &all {
        let to = graph.entry(source.path.clone()).or_default();
        for path in paths(source) {
            let mut module = path.as_str();
            while !files.contains_key(module) {
                module = module.rsplit_once("::").map_or("", |(parent, _)| parent);
                if module.is_empty() {
                    break;
                }
            }
            to.extend(files.get(module).filter(|file| **file != source.path).cloned());
        }
    }
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 200, "imports were not found");
    report("files in a circle of imports", &within_straight(circles(&graph)));
}

/// Bodies of `impl` blocks: of which type, and their text.
fn impls(source: &Source) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("impl") {
        if at > 0 && !source.code[..at].ends_with('\n') {
            continue;
        }
        let rest = &source.code[at..];
        let Some(open) = rest.find('{') else { continue };
        let head = rest[4..open].split(" where ").next().unwrap_or_default();
        let of = head.rsplit(" for ").next().unwrap_or_default();
        // Without the parameters of the block itself, and those of the type.
        let of =
            if of.starts_with('<') { of.split_once("> ").map_or(of, |(_, of)| of) } else { of };
        let name = words(of).next().unwrap_or_default().to_owned();
        let mut level = 0;
        let close = rest[open..].char_indices().find(|(_, c)| {
            level += i32::from(*c == '{') - i32::from(*c == '}');
            level == 0
        });
        found.push((name, &rest[open..open + close.map_or(0, |(at, _)| at)]));
    }
    found
}

#[test]
fn no_files_call_each_other_by_methods_of_one_struct() {
    let all: Vec<Source> =
        sources().into_iter().filter(|source| source.path.starts_with("src/")).collect();
    let mut methods: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut bodies = Vec::new();
    for source in &all {
        for (name, body) in impls(source) {
            for (at, _) in body.match_indices("fn ") {
                let method = words(&body[at + 3..]).next().unwrap_or_default().to_owned();
                methods.insert((name.clone(), method), source.path.clone());
            }
            bodies.push((name, source.path.clone(), body.to_owned()));
        }
    }
    let mut graphs: BTreeMap<String, Graph> = BTreeMap::new();
    for (name, path, body) in bodies {
        for start in ["self.", "Self::", "trees."] {
            for (at, _) in body.match_indices(start) {
                let method = words(&body[at + start.len()..]).next().unwrap_or_default();
                let to = methods.get(&(name.clone(), method.to_owned()));
                if let Some(to) = to.filter(|to| **to != path) {
                    let graph = graphs.entry(name.clone()).or_default();
                    graph.entry(path.clone()).or_default().insert(to.clone());
                    graph.entry(to.clone()).or_default();
                }
            }
        }
    }
    assert!(graphs.contains_key("Trees"), "the methods were not found");
    let mut broken = Vec::new();
    for (name, graph) in &graphs {
        let found = within_straight(circles(graph)).into_iter();
        broken.extend(found.map(|file| format!("{name}: {file}")));
    }
    report("files whose methods call each other", &broken);
}

#[test]
fn the_daemon_is_implemented_where_the_turn_is() {
    let mut found = Vec::new();
    for source in sources().into_iter().filter(|source| source.path.starts_with("src/")) {
        let is_turn = TURN.iter().any(|place| source.path.starts_with(place));
        if !is_turn && impls(&source).iter().any(|(name, _)| name == "Daemon") {
            found.push(source.path);
        }
    }
    report("impl Daemon beside the turn", &differences(&found, BESIDE_THE_TURN));
}

#[test]
fn machines_are_stepped_in_one_place() {
    let steps = |source: &Source| source.code.contains("machine.step(");
    let all = sources().into_iter().filter(|source| source.path.starts_with("src/"));
    let found: Vec<String> = all.filter(steps).map(|source| source.path).collect();
    assert_eq!(found, ["src/daemon/learn.rs"]);
}

#[test]
fn no_struct_holds_everything() {
    let mut found = BTreeMap::new();
    for source in sources().into_iter().filter(|source| source.path.starts_with("src/")) {
        for (at, _) in source.code.match_indices("struct ") {
            let rest = source.code[at + 7..].replace("->", "  ");
            let name = words(&rest).next().unwrap_or_default().to_owned();
            let Some(open) = rest.find(['{', ';', '(']).filter(|at| rest[*at..].starts_with('{'))
            else {
                continue;
            };
            let mut level = 0;
            let mut fields = 0;
            for c in rest[open..].chars() {
                level += i32::from("{([<".contains(c)) - i32::from("})]>".contains(c));
                fields += usize::from(c == ',' && level == 1);
                if level == 0 {
                    break;
                }
            }
            found.insert(format!("{}:{name}", source.path), fields);
        }
    }
    assert!(found.len() > 50, "the structs were not found");
    report("structs of over 16 fields", &super::over(&found, FIELDS_MAX, WIDE_STRUCTS));
}
