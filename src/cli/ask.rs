//! Asking the daemon about a target, and saying what becomes of each item of it.
use super::Call;
use super::client::Need;
use super::output::{Done, Failure, complain, conclude, no_such, say};
use crate::service::selector::Selector;
use crate::wire::{Reply, Request, code};
use std::collections::HashSet;
use std::hash::Hash;

/// What stands on stderr where there is nothing to list: an empty answer might be a fault.
pub(super) const NO_SERVICES: &str = "no services (try 'opm start COMMAND')";

/// What was found, and the worst exit code.
pub(super) type Found<T> = (Vec<T>, u8);

/// A request about the target that ends with outcomes. Without a record every name is unknown,
/// and `all` is none.
pub(super) fn act(call: &Call, request: impl FnOnce(String) -> Request) -> Done {
    let target = call.target();
    let parsed = Selector::parse(&target).map_err(Failure::usage)?;
    match call.client.ask(Need::Record, &request(target))? {
        Some(Reply::Outcomes { outcomes, summary: None }) if outcomes.is_empty() => {}
        Some(reply) => return outcomes(&reply),
        None => {
            let unknown = parsed.parts().iter().filter(|part| !part.is_all());
            let unknown = unknown.map(|part| no_such(part.text()));
            if let Some(failure) = each(unknown) {
                return Err(failure);
            }
        }
    }
    complain(NO_SERVICES);
    Ok(code::DONE)
}

/// Says all failures but the last, which is given back.
fn each(failures: impl Iterator<Item = Failure>) -> Option<Failure> {
    failures.reduce(|said, next| {
        complain(&said.text);
        next
    })
}

/// Asks about each item of the target, so that one that names nothing hides no other. `take`
/// gives what a reply of the right kind holds, each with what tells it from others.
pub(super) fn collect<K: Eq + Hash, T>(
    call: &Call,
    need: Need,
    request: impl Fn(String) -> Request,
    take: impl Fn(&mut Reply) -> Option<Vec<(K, T)>>,
) -> Result<Found<T>, Failure> {
    let parsed = Selector::parse(&call.target()).map_err(Failure::usage)?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut worst = code::DONE;
    for part in parsed.parts() {
        let failure = match call.client.ask(need, &request(part.text().to_owned())) {
            Ok(Some(mut reply)) => match take(&mut reply) {
                Some(items) => {
                    let fresh = items
                        .into_iter()
                        .filter_map(|(key, item)| seen.insert(key).then_some(item));
                    found.extend(fresh);
                    continue;
                }
                None => instead(&reply),
            },
            Ok(None) if part.is_all() => continue,
            Ok(None) => no_such(part.text()),
            Err(failure) => failure,
        };
        if failure.code != code::NO_SUCH {
            return Err(failure);
        }
        if !failure.text.is_empty() {
            complain(&failure.text);
        }
        worst = failure.code;
    }
    // Nothing at all is an error without a document, not an empty one.
    if worst != code::DONE && found.is_empty() {
        return Err(Failure::new(worst, ""));
    }
    if found.is_empty() {
        complain(NO_SERVICES);
    }
    Ok((found, worst))
}

/// Says the outcomes and the summary of `reply`.
pub(super) fn outcomes(reply: &Reply) -> Done {
    let Reply::Outcomes { outcomes, summary } = reply else {
        return Err(strange());
    };
    let worst = conclude(outcomes)?;
    if let Some(summary) = summary {
        say(summary)?;
    }
    Ok(worst)
}

/// A reply of another kind than the request's own: outcomes say what is wrong with a target.
pub(super) fn instead(reply: &Reply) -> Failure {
    match outcomes(reply) {
        Ok(code) => Failure::new(code, ""),
        Err(failure) => failure,
    }
}

pub(super) fn strange() -> Failure {
    let text = "daemon: it answered something else (try 'opm daemon upgrade')";
    Failure::new(code::UNREACHABLE, text)
}
