//! Which versions run: a function of the record of deployments and of what the program has.

use rivermark_engine::{Deployments, State};
use std::collections::BTreeSet;

/// What is to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// The versions, in the order in which they are deployed: the live one first.
    pub(super) versions: Vec<u64>,
    /// Versions that would run and that the program does not have.
    pub(super) lacking: Vec<u64>,
}

/// Chooses. Of a flow that was never deployed the newest version is the first that is live, or the one that is asked for. Otherwise those run that
/// the record has as running, and the one that is asked for.
///
/// # Errors
/// The program does not have the live version, or the one that is asked for.
pub(super) fn choose(
    record: &Deployments,
    program: &BTreeSet<u64>,
    deploy: Option<u64>,
) -> Result<Choice, String> {
    let has = |version: u64| -> Result<u64, String> {
        let known: Vec<String> = program.iter().map(u64::to_string).collect();
        let known = known.join(", ");
        program
            .get(&version)
            .copied()
            .ok_or_else(|| format!("the program has no version {version}; it has {known}"))
    };
    let Some(live) = record.live() else {
        let first = match deploy {
            Some(version) => has(version)?,
            None => program.last().copied().ok_or("the program has no version")?,
        };
        return Ok(Choice { versions: vec![first], lacking: Vec::new() });
    };
    if !program.contains(&live) {
        return Err(format!("version {live} is live, and {}", has(live).err().unwrap_or_default()));
    }
    let mut wanted: BTreeSet<u64> = deploy.map(has).transpose()?.into_iter().collect();
    let runs = |state| matches!(state, State::Replaying | State::CaughtUp | State::Kept);
    wanted
        .extend(record.versions.iter().filter(|(_, version)| runs(version.state)).map(|(number, _)| *number));
    wanted.remove(&live);
    let (present, lacking): (Vec<u64>, Vec<u64>) =
        wanted.into_iter().partition(|version| program.contains(version));
    Ok(Choice { versions: [live].into_iter().chain(present).collect(), lacking })
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;
    use rivermark_engine::Version;
    use std::collections::BTreeMap;

    fn record(versions: &[(u64, State)]) -> Deployments {
        let version = |state: State| Version {
            state,
            outputs: BTreeMap::new(),
            live_since: 0,
            kept_until_ms: None,
            reason: None,
            is_freed: false,
            topics_to_free: BTreeSet::new(),
        };
        Deployments {
            flow: "f".into(),
            versions: versions.iter().map(|(number, state)| (*number, version(*state))).collect(),
            outputs: BTreeMap::new(),
            switches: 0,
        }
    }

    fn chosen(
        versions: &[(u64, State)],
        program: &[u64],
        deploy: Option<u64>,
    ) -> Result<(Vec<u64>, Vec<u64>), String> {
        let chosen = choose(&record(versions), &program.iter().copied().collect(), deploy)?;
        Ok((chosen.versions, chosen.lacking))
    }

    #[test]
    fn the_newest_version_is_the_first_unless_another_is_asked_for() {
        assert_eq!(chosen(&[], &[1, 2], None), Ok((vec![2], vec![])));
        assert_eq!(chosen(&[], &[1, 2], Some(1)), Ok((vec![1], vec![])));
        assert!(chosen(&[], &[1, 2], Some(3)).unwrap_err().contains("no version 3; it has 1, 2"));
    }

    #[test]
    fn what_ran_runs_again_the_live_version_first_and_nothing_is_deployed_that_nobody_asked_for() {
        let ran =
            [(1, Kept), (2, Live), (3, Replaying), (4, Failed), (5, RolledBack), (6, Retired), (7, CaughtUp)];
        assert_eq!(chosen(&ran, &[1, 2, 3, 4, 5, 6, 7, 8], None), Ok((vec![2, 1, 3, 7], vec![])));
        assert_eq!(chosen(&ran, &[2, 3, 4, 8], Some(4)), Ok((vec![2, 3, 4], vec![1, 7])));
        assert_eq!(chosen(&ran, &[2, 8], Some(8)), Ok((vec![2, 8], vec![1, 3, 7])));
    }

    #[test]
    fn a_program_without_the_live_version_does_not_run() {
        assert!(
            chosen(&[(1, Live)], &[2], None)
                .unwrap_err()
                .contains("version 1 is live, and the program has no version 1")
        );
        assert_eq!(chosen(&[(1, Live)], &[1, 2], Some(1)), Ok((vec![1], vec![])));
    }
}
