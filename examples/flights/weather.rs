//! P2: how late flights are by how far one could see. An as-of join of departures with the weather of their airport.

use super::picture::{AIRPORT_COLOURS, Anchor, Picture, Section};
use super::{Departure, ORIGINS, origin_partition};
use rivermark::connectors::LogSink;
use rivermark::log::Log;
use rivermark::source::Source;
use rivermark::{BoxError, Flow, Timestamp, Watermarks, days, hours};
use serde::{Deserialize, Serialize};

/// The topic that the observations are in, a partition for each airport.
pub const WEATHER: &str = "weather";

/// The bands of visibility in miles, the worst first.
pub const BANDS: [&str; 4] = ["0-1", "1-3", "3-10", "10"];

/// An hourly observation at an airport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// When it was made, in seconds since 1970: the order of the file, and the event time.
    pub obs_ts: i64,
    pub origin: String,
    /// How far one could see, in miles.
    pub visib_mi: f64,
}

impl Weather {
    pub fn observed(&self) -> Timestamp {
        Timestamp::from_secs(self.obs_ts)
    }

    /// The band of visibility that it falls in.
    fn band(&self) -> &'static str {
        match self.visib_mi {
            ..1.0 => "0-1",
            ..3.0 => "1-3",
            ..10.0 => "3-10",
            _ => "10",
        }
    }
}

/// How late the flights were from an airport, by how far one could see there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByVisibility {
    pub origin: String,
    /// One of [`BANDS`], or `none` where nobody had looked for two hours.
    pub visibility: String,
    pub n: u64,
    pub sum_delay_min: i64,
    pub n_late15: u64,
    /// How old the observations were, all together; empty where there were none.
    pub sum_obs_age_s: Option<i64>,
}

impl ByVisibility {
    /// The row of one flight.
    fn of(departure: Departure, weather: Option<&Weather>) -> ByVisibility {
        ByVisibility {
            visibility: weather.map_or("none", Weather::band).into(),
            n: 1,
            sum_delay_min: departure.dep_delay_min,
            n_late15: u64::from(departure.dep_delay_min >= 15),
            sum_obs_age_s: weather.map(|weather| departure.sched_dep - weather.obs_ts),
            origin: departure.origin,
        }
    }

    /// Adds the flights of another row of the same airport and band.
    fn add(&mut self, other: &ByVisibility) {
        if self.n == 0 {
            *self = other.clone();
            return;
        }
        self.n += other.n;
        self.sum_delay_min += other.sum_delay_min;
        self.n_late15 += other.n_late15;
        self.sum_obs_age_s = match (self.sum_obs_age_s, other.sum_obs_age_s) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
    }

    /// How many of a hundred flights were a quarter of an hour late or more.
    pub fn percent_late(&self) -> f64 {
        100.0 * self.n_late15 as f64 / self.n as f64
    }
}

/// The flow: each departure with the newest observation that its airport had when it should have left, if that is no older than two hours.
/// Planes leave up to 43 minutes early, so the join waits for the weather's watermark.
pub fn flow(
    name: &str,
    departures: impl Source<Item = Departure>,
    weather: impl Source<Item = Weather>,
) -> Flow {
    let flow = Flow::new(name);
    let weather = flow
        .source(weather)
        .event_time(Weather::observed, Watermarks::monotonous())
        .key_by(|weather| weather.origin.clone());
    flow.source(departures)
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .key_by(|departure| departure.origin.clone())
        .as_of_join(weather, hours(2))
        .left(|_, departure, weather| ByVisibility::of(departure, weather))
        .key_by(|row| (row.origin.clone(), row.visibility.clone()))
        .window(super::whole_year())
        .fold(ByVisibility::default(), ByVisibility::add, ByVisibility::add)
        .map(|row| row.value)
        .sink(LogSink::topic(name));
    flow
}

/// Appends the observations to their topic, unless they are there.
pub fn append(log: &Log) -> Result<(), BoxError> {
    let weather: Vec<Weather> = super::rows_of("weather.csv.zst")?;
    super::append(log, WEATHER, 3, &weather, |weather| origin_partition(&weather.origin), |_| ())
}

/// The picture, and what it shows.
pub fn section(rows: &[ByVisibility]) -> Section {
    Section {
        title: "Late by what one could see",
        text: "Flights a quarter of an hour late or more, in percent, by the visibility that the airport had last reported.",
        picture: draw(rows),
    }
}

/// Draws the share of late flights as bars, in groups by visibility.
fn draw(rows: &[ByVisibility]) -> String {
    const BASE: f64 = 250.0;
    const GROUP: f64 = 150.0;
    const BAR: f64 = 36.0;
    /// Height of one percent.
    const PERCENT: f64 = 5.0;
    let mut picture = Picture::new(690.0, 300.0);
    for percent in [10, 20, 30, 40] {
        let y = BASE - f64::from(percent) * PERCENT;
        picture.line((60.0, y), (670.0, y));
        picture.text((52.0, y + 4.0), Anchor::End, &format!("{percent} %"));
    }
    for (group, band) in BANDS.iter().enumerate() {
        let left = 75.0 + group as f64 * GROUP;
        for (at, origin) in ORIGINS.iter().enumerate() {
            let Some(row) = rows.iter().find(|row| row.origin == *origin && row.visibility == *band) else {
                continue;
            };
            let (x, height) = (left + at as f64 * (BAR + 4.0), row.percent_late() * PERCENT);
            let hint = format!("{origin}, {band} mi: {} of {} flights late", row.n_late15, row.n);
            picture.rect((x, BASE - height), (BAR, height), AIRPORT_COLOURS[at], &hint);
            picture.text(
                (x + BAR / 2.0, BASE - height - 5.0),
                Anchor::Middle,
                &format!("{:.0}", row.percent_late()),
            );
            picture.text((x + BAR / 2.0, BASE + 16.0), Anchor::Middle, origin);
        }
        let miles = if *band == "10" { "10 miles and more" } else { &format!("{band} miles") };
        picture.text((left + 1.5 * BAR + 4.0, BASE + 36.0), Anchor::Middle, miles);
    }
    picture.finish()
}
