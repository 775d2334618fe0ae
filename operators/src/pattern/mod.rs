//! Pattern matching (complex event processing, CEP): sequences of events that fit a pattern, for each key, on event-time order.
//!
//! A [`Pattern`] is a list of steps. A match gives events to steps, in order, so that all of this holds:
//!
//! 1. **Conditions.** Each event fits the condition of its step ([`where_`](Pattern::where_)), which may look at the events before it in the
//!    match ([`where_iterative`](Pattern::where_iterative)).
//! 2. **Times.** A step has one event, or as many as it says ([`times`](Pattern::times), [`one_or_more`](Pattern::one_or_more)); an
//!    [`optional`](Pattern::optional) step may have none, but one match has one event at least.
//! 3. **Contiguity.** Between an event and the one before it in the match there is, by the step of the later one: nothing
//!    ([`next`](Pattern::next)); no event that could have been taken in its place ([`followed_by`](Pattern::followed_by)); whatever there is
//!    ([`followed_by_any`](Pattern::followed_by_any)). Between the events of a repeated step it is the second, unless it is
//!    [`consecutive`](Pattern::consecutive) (the first) or [`allow_combinations`](Pattern::allow_combinations) (the third).
//! 4. **Negation.** No event that [`not_followed_by`](Pattern::not_followed_by) describes comes after the event before it, up to and with
//!    the event after it in the match; none that [`not_next`](Pattern::not_next) describes comes directly after the event before it. At the
//!    end of a pattern they hold until the time of `within` is up; `not_next` also has its answer with the next event.
//! 5. **Until.** A repeated step takes no event from the one on for which its [`until`](Pattern::until) holds.
//! 6. **Greed.** Where a [`greedy`](Pattern::greedy) step could have taken an event, that event is taken by no later step, and none after it.
//! 7. **Within.** The last event is less than [`within`](Pattern::within) later than the first.
//!
//! Every match there is is told, unless [`after_match`](Pattern::after_match) says which are skipped. A partial match that is no match when
//! its time is up goes to [`PatternStream::timed_out`].
//!
//! By example, with letters as events; a match is shown by its letters:
//!
//! ```
//! use rivermark_operators::pattern::{AfterMatch, Pattern};
//! use rivermark_operators::{Timestamp, millis, testing};
//!
//! # fn begin(step: char) -> Pattern<char> {
//! #     Pattern::begin(step).where_(move |letter| *letter == step).within(millis(100))
//! # }
//! # fn is(wanted: char) -> impl Fn(&char) -> bool + Send + Sync + 'static {
//! #     move |letter| *letter == wanted
//! # }
//! /// The matches in letters that come one after the other.
//! fn found(pattern: Pattern<char>, letters: &str) -> String {
//!     let mut it = testing::Harness::new();
//!     let (input, stream) = it.input::<char>();
//!     let matches = stream.key_by(|_| 0_u8).pattern(pattern);
//!     let rows = it.output(matches.select(|_, found| found.all().into_iter().map(|(_, _, letter)| *letter).collect::<String>()));
//!     (1..).zip(letters.chars()).for_each(|(time, letter)| it.push(&input, Timestamp::from_millis(time), letter));
//!     it.end(&input);
//!     it.take(&rows).join(" ")
//! }
//!
//! // Here `begin('a')` is short for `Pattern::begin("a").where_(|letter| *letter == 'a').within(millis(100))`, and `is` for such a condition.
//! // What may lie between two events:
//! assert_eq!(found(begin('a').next("b").where_(is('b')), "ab axb"), "ab");
//! assert_eq!(found(begin('a').followed_by("b").where_(is('b')), "axbb"), "ab");
//! assert_eq!(found(begin('a').followed_by_any("b").where_(is('b')), "axbb"), "ab ab");
//! // What must not:
//! assert_eq!(found(begin('a').not_next("x").where_(is('x')).followed_by("b").where_(is('b')), "axb aab"), "ab ab");
//! assert_eq!(found(begin('a').not_followed_by("x").where_(is('x')).followed_by("b").where_(is('b')), "ayxb ayb"), "ab");
//! // How often:
//! assert_eq!(found(begin('a').next("b").where_(is('b')).optional().next("c").where_(is('c')), "abc ac"), "abc ac");
//! assert_eq!(found(begin('a').times(2).next("b").where_(is('b')), "aab"), "aab");
//! assert_eq!(found(begin('a').next("b").where_(is('b')).times_between(1, 2).next("c").where_(is('c')), "abbc abbbc"), "abbc");
//! assert_eq!(found(begin('a').followed_by("b").where_(is('b')).times(2), "abxb"), "abb");
//! assert_eq!(found(begin('a').followed_by("b").where_(is('b')).times(2).consecutive(), "abxb abb"), "abb");
//! assert_eq!(found(begin('a').followed_by("b").where_(is('b')).one_or_more(), "abb"), "ab abb");
//! assert_eq!(found(begin('a').followed_by("b").where_(is('b')).one_or_more().greedy().next("c").where_(is('c')), "abbc"), "abbc");
//! // Which events, also by what has been matched so far:
//! assert_eq!(found(begin('a').next("vowel").where_(is('e')).or(is('i')), "ae ai ax"), "ae ai");
//! let rising = begin('a').next("higher").where_iterative(|letter, found| found.all().iter().all(|(_, _, before)| *before < letter));
//! assert_eq!(found(rising, "ab aa"), "ab");
//! // Which matches are skipped when one has been told:
//! assert_eq!(found(begin('a').times_or_more(2), "aaa"), "aa aaa aa");
//! assert_eq!(found(begin('a').times(2).after_match(AfterMatch::SkipPastLastEvent), "aaaa"), "aa aa");
//! ```
//!
//! The terms and, where nothing else is said, the results are those of Flink's CEP. What differs: `not_next` at the end of a pattern is told when
//! the time is up and nothing has come; what has been told as a match does not time out when it could have gone on; a greedy step at the end
//! is refused, where Flink tells a match for each of its events; patterns that could keep partial matches for ever are refused, so `within` is
//! missing only where every step follows directly. Groups of steps and times between two steps are not there.
//!
//! Events run in event-time order, so the matches are a property of the log: the same at any speed, with any number of workers and after any
//! crash. Records that are late for their own partition are counted and left out. A row has the time at which its match is known: that of
//! its last event, or later where something had to be waited for.
//!
//! State: for each key its partial matches and their events, in one value that is in memory while its key is in hand. All of it is gone when
//! `within` has passed since the last event that began one. How many partial matches there are is up to the pattern: one for each event that
//! can begin a match, times the ways to go on. `followed_by_any` and `allow_combinations` can double them with each event.
//!
//! The automaton follows SASE+ (Agrawal et al., "Efficient Pattern Matching over Event Streams", SIGMOD 2008), with counters in place of unrolled
//! states.

mod automaton;
mod compile;
mod condition;
mod describe;
mod runs;
mod stream;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod oracle;

pub use describe::{AfterMatch, Pattern};
pub use runs::Match;
pub use stream::PatternStream;

use automaton::Automaton;
