//! A case for each operator. A new operator is a new entry of [`CASES`].

use super::Inputs;
use super::feed::Record;
use rivermark::join::{BroadcastContext, BroadcastFunction};
use rivermark::window::triggered::Accumulating;
use rivermark::{
    Aggregate, AsOfJoin, BoxError, Context, DeadLetter, Either, Expiring, Interval, IntervalJoin, Keep,
    KeyedStream, List, LookUp, Map, Match, Pattern, ProcessFunction, Punctuation, Reducing, Reply,
    Retractable, Side, Stream, StreamTableJoin, Table, Timestamp, Trigger, TriggeredWindows, Ttl, Upsert,
    Value, WindowJoin, Windowed, WindowedStream, Windows, millis,
};

/// An operator, or several of a kind, and a flow that has little else.
pub struct Case {
    pub name: &'static str,
    /// What it covers, as `Type::method`.
    pub covers: &'static [&'static str],
    /// Describes the flow.
    pub describe: fn(&Inputs<'_>),
}

const fn case(name: &'static str, covers: &'static [&'static str], describe: fn(&Inputs<'_>)) -> Case {
    Case { name, covers, describe }
}

/// Operators that have no case: what they do is not a function of the log alone. That a replay repeats it is `processing_time`'s claim.
pub const EXEMPT: &[&str] = &["Stream::processing_time"];

pub const CASES: &[Case] = &[
    // Stateless.
    case("map", &["Flow::source", "Stream::map"], |it| it.show(it.timeless(0).map(|record| record.2 * 2))),
    case("try_map", &["Stream::try_map"], |it| it.show(it.timeless(0).try_map(|record| Ok(record.2 + 1)))),
    case("filter", &["Stream::filter"], |it| it.show(it.timeless(0).filter(|record| record.2 % 3 == 0))),
    case("inspect", &["Stream::inspect"], |it| it.show(it.timeless(0).inspect(|_| ()))),
    case("flat_map", &["Stream::flat_map"], |it| {
        it.show(it.timeless(0).flat_map(|record| vec![record; (record.2 % 4) as usize]));
    }),
    case("filter_map", &["Stream::filter_map"], |it| {
        it.show(it.timeless(0).filter_map(|record| (record.2 % 2 == 0).then_some(record.1)));
    }),
    case("look_up", &["Stream::look_up"], |it| {
        // A service that is a function of what it is asked; what others answer is `look_ups`' business.
        let service = || LookUp::new(|n: i64, reply: Reply<i64>| reply.send(Ok(n * n % 101))).capacity(5);
        let joined = |record: Record, answer| (record.0, record.1, record.2 + answer);
        let asked = it.timed(0).look_up(service().unordered(), |record| record.1, joined);
        it.show(asked.key_by(|record| record.0).window(Windows::tumbling(millis(20))).sum(|record| record.2));
        it.show(it.timeless(1).look_up(service(), |record| record.2, joined));
    }),
    case("event_time_punctuated", &["Stream::event_time_punctuated"], |it| {
        // Some records promise more than is kept, and some are nothing but that.
        let says = |record: &Record| match record.2 {
            0 => Punctuation::Heartbeat(Timestamp::from_millis(record.1)),
            1..4 => Punctuation::Promise(Timestamp::from_millis(record.1 - 5)),
            _ => Punctuation::None,
        };
        let time = |record: &Record| Timestamp::from_millis(record.1);
        let timed = it.timeless(0).event_time_punctuated(time, it.pace.watermarks(), says);
        it.show(timed.key_by(|record| record.0).window(Windows::tumbling(millis(20))).sum(|record| record.2));
    }),
    case("union", &["Stream::union"], |it| it.show(it.timed(0).union(it.timed(1)))),
    case("dead letters", &["Flow::source_with_dead_letters"], |it| {
        let (records, dead) = it.flow.source_with_dead_letters(it.feed(0).undecodable(5));
        it.show(records);
        show_letters(it, dead);
    }),
    case("dead letters of functions", &["Stream::dead_letters", "Stream::try_flat_map"], |it| {
        let odd = |record: Record| if record.2 % 2 == 0 { Ok([record.2]) } else { Err("it is odd".into()) };
        let even = it.timeless(0).try_flat_map(odd);
        show_letters(it, even.dead_letters());
        it.show(even);
        let tripled =
            |row: Windowed<u8, u64>| if row.value < 9 { Ok(row.value * 3) } else { Err("too many".into()) };
        let windows = keyed(it, 1).window(Windows::tumbling(millis(50))).count().try_map(tripled);
        show_letters(it, windows.dead_letters());
        it.show(windows);
    }),
    case("dead letters of functions with state", &["Stream::dead_letters"], |it| {
        let ordered = keyed(it, 0).in_event_time_order().process(NoThirds);
        show_letters(it, ordered.dead_letters());
        it.show(ordered);
    }),
    // By key, in event-time order.
    case("reduce", &["KeyedStream::reduce"], |it| {
        it.show(
            keyed(it, 0).reduce(|total, record| *total = (record.0, record.1, total.2 * 3 % 101 + record.2)),
        );
    }),
    case("distinct", &["KeyedStream::distinct"], |it| {
        it.show(it.timed(0).key_by(|record| (record.0, record.2)).distinct());
    }),
    case("deduplicate, first", &["KeyedStream::deduplicate"], |it| {
        it.show(keyed(it, 0).deduplicate(Keep::First, millis(30)));
    }),
    case("deduplicate, last", &["KeyedStream::deduplicate"], |it| {
        it.show(keyed(it, 0).deduplicate(Keep::Last, millis(30)));
    }),
    // Patterns.
    case("pattern", &["KeyedStream::pattern", "PatternStream::select"], |it| {
        it.show(keyed(it, 0).pattern(rising()).select(|key, found| format!("{key} {:?}", found.all())));
    }),
    case(
        "pattern, and what is too slow",
        &["PatternStream::timed_out", "PatternStream::flat_select"],
        |it| {
            let rows = it.rows.clone();
            let slow = |key: &u8, partial: &Match<'_, Record>| format!("slow {key} {:?}", partial.all());
            let patterns = keyed(it, 0).pattern(rising()).timed_out(slow, |slow| slow.sink(rows));
            it.show(patterns.flat_select(|_, found| {
                found.all().into_iter().map(|(_, _, record)| *record).collect::<Vec<_>>()
            }));
        },
    ),
    // Windows.
    case(
        "count",
        &["Stream::event_time", "Stream::key_by", "KeyedStream::window", "WindowedStream::count"],
        |it| {
            it.show(tumbling(it).count());
        },
    ),
    case("into_keyed", &["Stream::into_keyed"], |it| {
        let pairs = it.timed(0).into_keyed(|record| (record.2 % 3 != 0).then_some((record.0, record.2)));
        it.show(pairs.window(Windows::tumbling(millis(20))).sum(|value| *value));
    }),
    case("sum", &["WindowedStream::sum"], |it| it.show(tumbling(it).sum(|record| record.2))),
    case("min", &["WindowedStream::min"], |it| it.show(tumbling(it).min(|record| record.2))),
    case("max", &["WindowedStream::max"], |it| it.show(tumbling(it).max(|record| record.2))),
    // Of whole numbers: sums of others depend on the order in their last bits, as its documentation says.
    case("average", &["WindowedStream::average"], |it| {
        it.show(tumbling(it).average(|record| record.2 as f64))
    }),
    case("fold", &["WindowedStream::fold"], |it| {
        it.show(tumbling(it).fold(0, |sum, record| *sum += record.2 * record.2, |sum, other| *sum += other));
    }),
    case("aggregate", &["WindowedStream::aggregate"], |it| it.show(tumbling(it).aggregate(Values))),
    case("reduce of windows", &["WindowedStream::reduce"], |it| {
        it.show(tumbling(it).reduce(|greatest, record| *greatest = (*greatest).max(*record)));
    }),
    case("top-n of windows", &["WindowedStream::top_n"], |it| {
        it.show(tumbling(it).top_n(3, |record| record.2))
    }),
    case("top-n of windows, with ties", &["WindowedStream::top_n_with_ties"], |it| {
        it.show(tumbling(it).top_n_with_ties(2, |record| record.2 / 4));
    }),
    case("top-n of windows' rows", &["Stream::top_n"], |it| {
        let sums = keyed(it, 0).window(Windows::tumbling(millis(20))).sum(|record| record.2);
        it.show(sums.top_n(2, |_, sum| *sum));
    }),
    case("sliding windows", &[], |it| {
        it.show(keyed(it, 0).window(Windows::sliding(millis(60), millis(20))).aggregate(Values));
    }),
    case("session windows", &[], |it| {
        it.show(keyed(it, 0).window(Windows::session(millis(12))).aggregate(Values))
    }),
    case("late records", &[], |it| {
        let rows = it.rows.clone();
        let late = move |late: Stream<_>| late.map(|late| format!("late {late:?}")).sink(rows);
        it.show(tumbling(it).late_output(late).aggregate(Values));
    }),
    case("records of windows", &["WindowedStream::process"], |it| {
        it.show(keyed(it, 0).window(Windows::session(millis(12))).process(|row| Ok(Some(row))));
    }),
    // Windows with triggers, and by count.
    case("panes, accumulating", &["TriggeredWindows::process"], |it| {
        it.show(often(tumbling(it)).process(|row| Ok(Some(row))));
        it.show(often(keyed(it, 0).window(Windows::session(millis(12)))).process(|row| Ok(Some(row))));
    }),
    case("panes, discarding", &["TriggeredWindows::aggregate", "TriggeredWindows::average"], |it| {
        it.show(often(tumbling(it)).discarding().aggregate(Values));
        it.show(often(keyed(it, 0).window(Windows::global())).discarding().average(|record| record.2 as f64));
    }),
    case("panes, retracting", &["TriggeredWindows::sum", "Stream::to_window_table"], |it| {
        let sums =
            often(keyed(it, 0).window(Windows::session(millis(12)))).retracting().sum(|record| record.2);
        it.show(sums.to_window_table().group_by(|_, sum| sum % 5).count().changes());
    }),
    case(
        "aggregates of panes",
        &[
            "TriggeredWindows::count",
            "TriggeredWindows::min",
            "TriggeredWindows::max",
            "TriggeredWindows::fold",
        ],
        |it| {
            it.show(often(tumbling(it)).count());
            it.show(often(tumbling(it)).min(|record| record.2));
            it.show(often(tumbling(it)).max(|record| record.2));
            let mix = |acc: &mut i64, record: &Record| *acc = *acc * 3 % 101 + record.2;
            it.show(often(tumbling(it)).fold(0, mix, |acc, other| *acc = *acc * 3 % 101 + other));
        },
    ),
    case("windows by count", &["TriggeredWindows::top_n", "TriggeredWindows::reduce"], |it| {
        it.show(keyed(it, 0).count_windows(4).top_n(3, |record| record.2));
        let mix = |all: &mut Record, next: &Record| *all = (next.0, next.1, all.2 * 3 % 101 + next.2);
        it.show(keyed(it, 0).sliding_count_windows(5, 3).reduce(mix));
    }),
    // Functions with state and timers.
    case("process", &["KeyedStream::process", "Stream::side_output"], |it| {
        let rows = keyed(it, 0).process(Sums);
        it.show(rows.side_output(GREAT));
        it.show(rows);
    }),
    case("process in event-time order", &[], |it| {
        it.show(keyed(it, 0).in_event_time_order().process(Before));
    }),
    case("state with a time to live", &[], |it| {
        it.show(keyed(it, 0).in_event_time_order().process(Recently));
    }),
    case("connect", &["KeyedStream::connect"], |it| {
        let either = keyed(it, 0).connect(keyed(it, 1)).in_event_time_order();
        it.show(either.process(Before));
    }),
    // Joins.
    case("interval join, inner", &["IntervalJoin::inner"], |it| it.show(close(it).inner(|_, a, b| (*a, *b)))),
    case("interval join, left", &["IntervalJoin::left"], |it| {
        it.show(close(it).left(|_, a, b| (*a, b.copied())))
    }),
    case("interval join, right", &["IntervalJoin::right"], |it| {
        it.show(close(it).right(|_, a, b| (a.copied(), *b)))
    }),
    case("interval join, full", &["IntervalJoin::full"], |it| {
        it.show(close(it).full(|_, a, b| (a.copied(), b.copied())));
    }),
    case("window join, inner", &["WindowJoin::inner"], |it| {
        it.show(together(it).inner(|_, w, a, b| (w, *a, *b)))
    }),
    case("window join, left", &["WindowJoin::left"], |it| {
        it.show(together(it).left(|_, window, a, b| (window, *a, b.copied())));
    }),
    case("window join, right", &["WindowJoin::right"], |it| {
        it.show(together(it).right(|_, window, a, b| (window, a.copied(), *b)));
    }),
    case("window join, full", &["WindowJoin::full"], |it| {
        it.show(together(it).full(|_, window, a, b| (window, a.copied(), b.copied())));
    }),
    case("as-of join, left", &["AsOfJoin::left"], |it| it.show(as_of(it).left(|_, a, b| (a, b.copied())))),
    case("as-of join, inner", &["AsOfJoin::inner"], |it| it.show(as_of(it).inner(|_, a, b| (a, *b)))),
    case("stream-table join, left", &["StreamTableJoin::left"], |it| {
        it.show(with_table(it).left(|_, record, row| (record, row.copied())));
    }),
    case("stream-table join, inner", &["StreamTableJoin::inner"], |it| {
        it.show(with_table(it).inner(|_, record, row| (record, *row)));
    }),
    case("broadcast", &["KeyedStream::process_with_broadcast"], |it| {
        it.show(keyed(it, 0).process_with_broadcast(table(it, 1), Ruling));
    }),
    // Tables.
    case("newest record as a table", &["KeyedStream::to_table", "Table::changes"], |it| {
        it.show(keyed(it, 0).to_table().changes());
    }),
    case("upserts as a table", &["Stream::to_table"], |it| it.show(table(it, 0).changes())),
    case("upserts of a table", &["Table::to_stream"], |it| it.show(table(it, 0).to_stream())),
    case("filter of a table", &["Table::filter"], |it| {
        it.show(table(it, 0).filter(|_, value| value % 2 == 0).changes());
    }),
    case("map_values of a table", &["Table::map_values"], |it| {
        it.show(table(it, 0).map_values(|key, value| value / 4 + i64::from(*key)).changes());
    }),
    case("count of groups", &["Table::group_by", "GroupedTable::count"], |it| {
        it.show(table(it, 0).group_by(|_, value| value % 3).count().changes());
    }),
    case("sum of groups", &["GroupedTable::sum"], |it| {
        it.show(table(it, 0).group_by(|_, value| value % 3).sum(|value| *value).changes());
    }),
    case("fold of groups", &["GroupedTable::fold"], |it| {
        let groups = table(it, 0).group_by(|_, value| value % 3);
        it.show(groups.fold(0, |sum, row| *sum += row * row, |sum, row| *sum -= row * row).changes());
    }),
    case("aggregate of groups", &["GroupedTable::aggregate"], |it| {
        it.show(table(it, 0).group_by(|_, value| value % 3).aggregate(Values).changes());
    }),
    case("top-n of groups", &["GroupedTable::top_n"], |it| {
        it.show(table(it, 0).group_by(|_, value| value % 3).top_n(2, |value| *value).changes());
    }),
    case("table join, inner", &["TableJoin::inner"], |it| {
        it.show(table(it, 0).join(table(it, 1)).inner(|_, a, b| (*a, *b)).changes());
    }),
    case("table join, left", &["TableJoin::left"], |it| {
        it.show(table(it, 0).join(table(it, 1)).left(|_, a, b| (*a, b.copied())).changes());
    }),
    case("table join, right", &["TableJoin::right"], |it| {
        it.show(table(it, 0).join(table(it, 1)).right(|_, a, b| (a.copied(), *b)).changes());
    }),
    case("table join, full", &["TableJoin::full"], |it| {
        it.show(table(it, 0).join(table(it, 1)).full(|_, a, b| (a.copied(), b.copied())).changes());
    }),
    case("foreign-key join, inner", &["ForeignKeyJoin::inner"], |it| {
        let join = table(it, 0).join_on(table(it, 1), |_, value| (value % 6) as u8);
        it.show(join.inner(|_, a, b| (*a, *b)).changes());
    }),
    case("foreign-key join, left", &["ForeignKeyJoin::left"], |it| {
        let join = table(it, 0).join_on(table(it, 1), |_, value| (value % 6) as u8);
        it.show(join.left(|_, a, b| (*a, b.copied())).changes());
    }),
];

/// Tells the value before each record, in the order of arrival.
pub const NOT_DETERMINISTIC: Case = case("order of arrival", &[], |it| it.show(keyed(it, 0).process(Before)));

fn keyed(it: &Inputs<'_>, seed: i64) -> KeyedStream<u8, Record> {
    it.timed(seed).key_by(|record| record.0)
}

/// A small value, then some that are greater, and not too long after.
fn rising() -> Pattern<Record> {
    let small = Pattern::begin("small").where_(|record: &Record| record.2 % 5 < 2);
    small.followed_by("greater").where_(|record| record.2 % 5 > 2).times(2).within(millis(60))
}

fn tumbling(it: &Inputs<'_>) -> WindowedStream<u8, Record> {
    keyed(it, 0).window(Windows::tumbling(millis(50)))
}

/// Early, on time and late.
fn often(windows: WindowedStream<u8, Record>) -> TriggeredWindows<u8, Record, Accumulating> {
    let trigger = Trigger::on_watermark().early_every(millis(20)).early_on_count(4).late_on_count(2);
    windows.allowed_lateness(millis(60)).trigger(trigger)
}

fn close(it: &Inputs<'_>) -> IntervalJoin<u8, Record, Record> {
    keyed(it, 0).interval_join(keyed(it, 1), Interval::around(millis(3), millis(2)))
}

fn together(it: &Inputs<'_>) -> WindowJoin<u8, Record, Record> {
    let windows = Windows::sliding(millis(20), millis(10));
    keyed(it, 0).window_join(keyed(it, 1), windows).allowed_lateness(millis(25))
}

fn as_of(it: &Inputs<'_>) -> AsOfJoin<u8, Record, Record> {
    keyed(it, 0).as_of_join(keyed(it, 1), millis(8))
}

fn with_table(it: &Inputs<'_>) -> StreamTableJoin<u8, Record, i64> {
    keyed(it, 0).join_table(table(it, 1))
}

/// Of each key a value, or none for a while.
fn table(it: &Inputs<'_>, seed: i64) -> Table<u8, i64> {
    let upsert = |(key, time, value): Record| Upsert {
        key,
        value: (value % 5 > 0).then_some(value),
        time: Timestamp::from_millis(time),
    };
    it.timed(seed).map(upsert).to_table()
}

/// All values, in order.
#[derive(Clone)]
struct Values;

impl Aggregate<Record> for Values {
    type Acc = Vec<i64>;
    type Out = Vec<i64>;

    fn create(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<i64>, record: &Record) {
        acc.push(record.2);
    }

    fn merge(&self, acc: &mut Vec<i64>, other: &Vec<i64>) {
        acc.extend(other);
    }

    fn finish(&self, acc: &Vec<i64>) -> Vec<i64> {
        let mut values = acc.clone();
        values.sort_unstable();
        values
    }
}

impl Retractable<i64> for Values {
    type Acc = Vec<i64>;
    type Out = Vec<i64>;

    fn create(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<i64>, row: &i64) {
        acc.push(*row);
    }

    fn remove(&self, acc: &mut Vec<i64>, row: &i64) {
        let at = acc.iter().position(|value| value == row).expect("it was added");
        acc.remove(at);
    }

    fn finish(&self, acc: &Vec<i64>) -> Vec<i64> {
        let mut values = acc.clone();
        values.sort_unstable();
        values
    }
}

const SUM: Reducing<i64> = Reducing::new("sum");
const GREAT: Side<Record> = Side::new("great");

/// Sums the values of each key, in any order, and tells the sum when the last timer is due.
#[derive(Clone)]
struct Sums;

impl ProcessFunction<u8, Record> for Sums {
    type Out = (u8, i64, i64);

    fn on_record(
        &mut self,
        _key: &u8,
        record: Record,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.state(SUM).add(record.2, |sum, value| *sum += value)?;
        if record.2 > 15 {
            cx.emit_to(GREAT, record);
        }
        // After all records, whatever their order: what a timer sees in between depends on the moment.
        cx.timer(Timestamp::from_millis(10_000 + record.2))
    }

    fn on_timer(
        &mut self,
        key: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let sum = cx.state(SUM).get()?.unwrap_or(0);
        cx.emit((*key, time.millis(), sum));
        Ok(())
    }
}

const LAST: Value<i64> = Value::new("last");

/// Tells each record with the value before it.
#[derive(Clone)]
struct Before;

impl Before {
    fn tell(record: Record, cx: &mut Context<'_, u8, (Record, Option<i64>)>) -> Result<(), BoxError> {
        let before = cx.state(LAST).get()?;
        cx.state(LAST).set(record.2)?;
        cx.emit((record, before));
        Ok(())
    }
}

impl ProcessFunction<u8, Record> for Before {
    type Out = (Record, Option<i64>);

    fn on_record(
        &mut self,
        _: &u8,
        record: Record,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        Before::tell(record, cx)
    }
}

impl ProcessFunction<u8, Either<Record, Record>> for Before {
    type Out = (Record, Option<i64>);

    fn on_record(
        &mut self,
        _: &u8,
        either: Either<Record, Record>,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let (Either::Left(record) | Either::Right(record)) = either;
        Before::tell(record, cx)
    }
}

const COUNT: Expiring<Value<i64>> = Value::new("count").expiring(Ttl::after_write(millis(9)));
const RECENT: Expiring<List<i64>> = List::new("recent").expiring(Ttl::after_write(millis(20)));
const SEEN: Expiring<Map<i64, i64>> = Map::new("seen").expiring(Ttl::after_access(millis(15)));

/// Tells each record with what is not yet forgotten, and what is left of that some time later.
#[derive(Clone)]
struct Recently;

impl ProcessFunction<u8, Record> for Recently {
    type Out = (i64, i64, Vec<i64>, Option<i64>);

    fn on_record(
        &mut self,
        _: &u8,
        record: Record,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let seen = cx.state(SEEN).get(&(record.2 % 4))?;
        cx.state(SEEN).put(record.2 % 4, record.1)?;
        let count = cx.state(COUNT).update(
            || 0,
            |count| {
                *count += 1;
                *count
            },
        )?;
        cx.state(RECENT).push(record.2)?;
        let recent = cx.state(RECENT).get()?;
        cx.emit((record.1, count, recent, seen));
        // One in four in the past: it comes when all records of this time have been seen.
        cx.timer(Timestamp::from_millis(record.1 + record.2 % 4 * 6 - 1))
    }

    fn on_timer(
        &mut self,
        _: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(-1);
        let mut seen = cx.state(SEEN).entries()?;
        seen.sort_unstable();
        let recent = cx.state(RECENT).get()?.into_iter().chain(seen.iter().map(|entry| entry.1));
        cx.emit((time.millis(), count, recent.collect(), None));
        Ok(())
    }
}

/// Looks up the rule for each record, and how many rules there are.
#[derive(Clone)]
struct Ruling;

impl BroadcastFunction<u8, Record, u8, i64> for Ruling {
    type Out = (Record, Option<i64>, usize);

    fn on_record(
        &mut self,
        _key: &u8,
        record: Record,
        cx: &mut BroadcastContext<'_, '_, u8, u8, i64, Self::Out>,
    ) -> Result<(), BoxError> {
        let rule = cx.broadcast(&((record.2 % 6) as u8))?;
        let rules = cx.broadcast_rows()?.len();
        cx.emit((record, rule, rules));
        Ok(())
    }
}

/// Adds up a key's records. Fails on some, after it has changed everything that can be changed.
#[derive(Clone)]
struct NoThirds;

impl ProcessFunction<u8, Record> for NoThirds {
    type Out = i64;

    fn on_record(
        &mut self,
        _key: &u8,
        record: Record,
        cx: &mut Context<'_, u8, i64>,
    ) -> Result<(), BoxError> {
        const TOTAL: Value<i64> = Value::new("total");
        let total = cx.state(TOTAL).update(
            || 0,
            |total| {
                *total = *total * 3 % 1009 + record.2;
                *total
            },
        )?;
        cx.emit(total);
        cx.timer(cx.time() + millis(25))?;
        if record.2 % 3 == 0 { Err(format!("{} is divisible by 3", record.2).into()) } else { Ok(()) }
    }

    fn on_timer(
        &mut self,
        _key: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, i64>,
    ) -> Result<(), BoxError> {
        cx.emit(-time.millis());
        if time.millis() % 7 == 0 { Err("the timer's time is divisible by 7".into()) } else { Ok(()) }
    }
}

/// Engines give each run of a case a flow of another name.
fn show_letters(it: &Inputs<'_>, letters: Stream<DeadLetter>) {
    it.show(letters.map(|letter| DeadLetter { flow: String::new(), ..letter }));
}
