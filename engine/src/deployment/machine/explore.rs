//! Every short history of a flow's deployments: what is wanted, what jobs do, and a crash between any two writes, actions and events.
//!
//! The world is a file (the record), what a process knows of it, jobs with the number of inputs each has processed, topics, and the aliases as
//! readers see them. A version writes `version` rows for each input, so that versions have different numbers of rows at the same inputs. A cut
//! may be taken whenever both versions have processed the same inputs. The claims:
//! 1. the record is without fault after every write;
//! 2. what a reader of the alias sees is each input once, in order: no gap, no duplicate;
//! 3. nothing is freed that the record still needs, and what runs is what the record says, once all actions are done;
//! 4. an event that is told again changes nothing or is refused.

use super::*;
use std::collections::{HashSet, VecDeque};

const ALIAS: &str = "rows";
const VERSIONS: [u64; 3] = [1, 2, 3];
const MOST_INPUTS: u64 = 2;
/// Moves from each beginning; a write has up to six actions.
const DEPTH: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The file.
    stored: Deployments,
    /// Actions that the process has yet to do; it does them in order.
    to_do: VecDeque<Action>,
    /// Whether there is a process.
    is_up: bool,
    running: BTreeSet<u64>,
    /// Inputs that each version has processed.
    processed: BTreeMap<u64, u64>,
    freed: BTreeSet<u64>,
    /// What readers see; empty until a process publishes it.
    published: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    Write(Event),
    /// The process dies after it has written, before it has done anything.
    WriteAndDie(Event),
    Act,
    /// An action whose effect is there and of which the process does not know.
    ActAndDie,
    Die,
    Open,
    Process(u64),
}

fn topic(version: u64) -> String {
    format!("{ALIAS}.v{version}")
}

fn outputs(version: u64) -> BTreeMap<String, OutputTopic> {
    BTreeMap::from([(ALIAS.to_owned(), OutputTopic { topic: topic(version), upserts: false })])
}

impl World {
    fn new() -> World {
        World {
            stored: Deployments::of("flow"),
            to_do: VecDeque::new(),
            is_up: true,
            running: BTreeSet::new(),
            processed: BTreeMap::new(),
            freed: BTreeSet::new(),
            published: Vec::new(),
        }
    }

    /// The cut from one version to another, if both have processed the same inputs.
    fn cut(&self, from: u64, to: u64) -> Option<Cut> {
        let inputs = |version| self.processed.get(&version).copied().unwrap_or(0);
        let runs = |version| self.running.contains(&version);
        (inputs(from) == inputs(to) && runs(from) && runs(to)).then(|| {
            let cut =
                OutputCut { until: vec![inputs(from) * from], from: vec![inputs(to) * to], correction: None };
            Cut { outputs: BTreeMap::from([(ALIAS.to_owned(), cut)]) }
        })
    }

    fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Tick { now_ms: 10 }];
        let live = self.stored.live();
        for version in VERSIONS {
            events.push(Event::Deploy { version, outputs: outputs(version) });
            events.push(Event::CaughtUp { version });
            events.push(Event::FellBehind { version });
            events.push(Event::Retire { version });
            events.push(Event::Failed { version, reason: "it failed".into() });
            if let Some(cut) = live.and_then(|live| self.cut(live, version)) {
                events.push(Event::Promote { version, cut, kept_until_ms: 10 });
            }
        }
        if let Some((live, before)) = live.zip(self.stored.before())
            && let Some(cut) = self.cut(live, before)
        {
            events.push(Event::RollBack { version: live, cut, reason: "it was wrong".into() });
        }
        events
    }

    fn moves(&self) -> Vec<Move> {
        if !self.is_up {
            return vec![Move::Open];
        }
        let mut moves = vec![Move::Die];
        if self.to_do.is_empty() {
            // A process does what it has decided before it decides again.
            let taken = self.events().into_iter();
            let taken = taken.filter(|e| self.stored.step(e).is_ok_and(|next| next != self.stored));
            moves.extend(taken.flat_map(|event| [Move::Write(event.clone()), Move::WriteAndDie(event)]));
        } else {
            moves.extend([Move::Act, Move::ActAndDie]);
        }
        let more = |version: &&u64| self.processed.get(version).copied().unwrap_or(0) < MOST_INPUTS;
        // While a switch is being carried out its versions stand still.
        if !self.to_do.iter().any(|action| matches!(action, Action::Publish { .. })) {
            moves.extend(self.running.iter().filter(more).map(|version| Move::Process(*version)));
        }
        moves
    }

    fn make(&self, step: &Move) -> World {
        let mut world = self.clone();
        match step {
            Move::Write(event) | Move::WriteAndDie(event) => {
                world.stored = self.stored.step(event).unwrap();
                world.to_do = world.stored.actions().into();
                assert_eq!(world.stored.fault(), None, "{event:?} of {:?}", self.stored);
                if let Ok(again) = world.stored.step(event) {
                    assert_eq!(again, world.stored, "{event:?} told again");
                }
                if matches!(step, Move::WriteAndDie(_)) {
                    world.die();
                }
            }
            Move::Act | Move::ActAndDie => {
                let action = world.to_do.pop_front().unwrap();
                world.act(&action);
                if *step == Move::ActAndDie {
                    world.die();
                } else if world.to_do.is_empty() {
                    world.check_done();
                }
            }
            Move::Die => world.die(),
            Move::Open => {
                world.is_up = true;
                world.to_do = world.stored.actions().into();
            }
            Move::Process(version) => *world.processed.entry(*version).or_default() += 1,
        }
        world.check_readers();
        world
    }

    fn die(&mut self) {
        self.is_up = false;
        self.running.clear();
        self.to_do.clear();
        self.published.clear();
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Run { version } => {
                assert!(!self.freed.contains(version), "version {version} runs without what it had");
                self.running.insert(*version);
            }
            Action::Stop { version } => drop(self.running.remove(version)),
            Action::Publish { segments, .. } => self.published = segments.clone(),
            Action::Free { version, topics } => {
                assert!(!self.running.contains(version), "version {version} is freed while it runs");
                let read = self.stored.outputs.values().flatten();
                assert!(read.clone().all(|segment| !topics.contains(&segment.topic)), "{topics:?} are read");
                self.freed.insert(*version);
                // The process tells itself, which is a write like any other.
                self.stored = self.stored.step(&Event::Freed { version: *version }).unwrap();
            }
        }
    }

    fn check_done(&self) {
        let runs = |version: &Version| {
            matches!(version.state, State::Replaying | State::CaughtUp | State::Live | State::Kept)
        };
        let wanted: BTreeSet<u64> =
            self.stored.versions.iter().filter(|(_, v)| runs(v)).map(|(number, _)| *number).collect();
        assert_eq!(self.running, wanted);
        for (number, version) in &self.stored.versions {
            assert_eq!(version.state == State::Retired, self.freed.contains(number), "version {number}");
        }
    }

    /// Reads the alias as it is published now: which input each row belongs to.
    fn check_readers(&self) {
        let (mut inputs, mut offset) = (Vec::new(), self.published.first().map(|s| s.base.first().copied()));
        for segment in &self.published {
            let version = segment.version;
            let all = self.processed.get(&version).copied().unwrap_or(0) * version;
            let until = segment.until.as_ref().map_or(all, |until| until[0]);
            let base = segment.base.first().copied();
            assert_eq!(base.unwrap_or(0), offset.flatten().unwrap_or(0), "{:?}", self.published);
            let rows = segment.from.first().copied().unwrap_or(0)..until;
            offset = Some(Some(base.unwrap_or(0) + (rows.end - rows.start)));
            // Row `r` belongs to input `r / version`; all of an input's rows are in one segment.
            assert!(rows.start % version == 0 && rows.end % version == 0, "{:?}", self.published);
            inputs.extend((rows.start / version)..(rows.end / version));
        }
        let first = inputs.first().copied().unwrap_or(0);
        let expected: Vec<u64> = (first..first + inputs.len() as u64).collect();
        assert_eq!(inputs, expected, "a gap or a duplicate in {:?}", self.published);
    }
}

/// All worlds that come of `from` in at most `depth` moves.
fn explore(from: World, depth: usize) -> HashSet<World> {
    let mut seen = HashSet::from([from.clone()]);
    let mut front = vec![from];
    for _ in 0..depth {
        let made = front.iter().flat_map(|world| world.moves().into_iter().map(|step| world.make(&step)));
        front = made.filter(|world| seen.insert(world.clone())).collect();
    }
    seen
}

#[test]
fn in_every_short_history_exactly_one_version_is_live_and_readers_see_each_input_once() {
    let short = explore(World::new(), DEPTH);
    // On from where the second version is about to take the place of the first, and the third runs too.
    let mut world = World::new();
    let deploy = |version| Move::Write(Event::Deploy { version, outputs: outputs(version) });
    let caught_up = |version| Move::Write(Event::CaughtUp { version });
    let steps =
        [deploy(1), Move::Process(1), deploy(2), Move::Process(2), deploy(3), caught_up(2), caught_up(3)];
    for step in steps {
        world = world.make(&step);
        while !world.to_do.is_empty() {
            world = world.make(&Move::Act);
        }
    }
    let long = explore(world, DEPTH);
    let any = |found: fn(&Version) -> bool| {
        short.iter().chain(&long).any(|world| world.stored.versions.values().any(found))
    };
    assert!(any(|version| version.state == State::RolledBack) && any(|version| version.is_freed));
    let switches = long.iter().map(|world| world.stored.switches).max();
    assert!(switches >= Some(3) && short.len() + long.len() > 30_000, "{} {}", short.len(), long.len());
}

#[test]
fn a_record_says_why_it_takes_no_such_step() {
    let mut record = Deployments::of("flow");
    let mut take = |event: Event| match record.step(&event) {
        Ok(next) => {
            record = next;
            String::new()
        }
        Err(reason) => reason,
    };
    let deploy = |version| Event::Deploy { version, outputs: outputs(version) };
    assert_eq!(take(deploy(1)), "");
    assert!(take(Event::Retire { version: 1 }).contains("version 1 is live"));
    assert!(
        take(Event::RollBack { version: 1, cut: Cut::default(), reason: String::new() }).contains("kept")
    );
    assert_eq!(take(deploy(2)), "");
    let promote = Event::Promote { version: 2, cut: Cut::default(), kept_until_ms: 0 };
    assert!(take(promote.clone()).contains("version 2 is replaying"));
    take(Event::CaughtUp { version: 2 });
    assert!(take(promote).contains("the cut says nothing of `rows`"));
    let other = BTreeMap::from([("others".to_owned(), OutputTopic { topic: topic(3), upserts: false })]);
    assert!(take(Event::Deploy { version: 3, outputs: other }).contains("has other outputs than version 1"));
    take(Event::Retire { version: 2 });
    assert!(take(deploy(2)).contains("was retired"));
}
