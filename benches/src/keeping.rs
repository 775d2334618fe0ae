//! A flow whose only business is a large state: a value of so many bytes for each key.

use crate::synthetic::{Keys, Nowhere, key_of};
use rivermark::source::Source;
use rivermark::{BoxError, Context, Flow, ProcessFunction, Value};

/// The state.
pub const KEPT: Value<Vec<u8>> = Value::new("kept");

/// Keeps `bytes` bytes a key, that no compression makes smaller, and changes one of them with each record.
#[derive(Clone)]
struct Keeping {
    bytes: usize,
}

/// Bytes without a pattern, the same for the same key.
fn noise(key: u64, bytes: usize) -> Vec<u8> {
    let words =
        (0..bytes.div_ceil(8) as u64).flat_map(|word| key_of(key ^ word << 40, u64::MAX).to_le_bytes());
    words.take(bytes).collect()
}

impl ProcessFunction<u64, u64> for Keeping {
    type Out = u64;

    fn on_record(&mut self, key: &u64, _record: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        let bytes = self.bytes;
        cx.state(KEPT).update(|| noise(*key, bytes), |kept| kept[0] = kept[0].wrapping_add(1))?;
        cx.emit(*key);
        Ok(())
    }
}

/// The operator that keeps them, in a job's metrics.
pub const OPERATOR: &str = "process-1";

/// `events` records over `keys` keys, with a state of `bytes` bytes a key.
pub fn flow(events: u64, keys: u64, bytes: usize, workers: usize) -> Flow {
    flow_over(Keys { events, keys, partitions: workers as u32 }, bytes)
}

/// A state of `bytes` bytes for each of the keys that `source` gives.
pub fn flow_over(source: impl Source<Item = u64>, bytes: usize) -> Flow {
    let flow = Flow::new("keeping");
    flow.source(source).key_by(|key| *key).process(Keeping { bytes }).sink(Nowhere);
    flow
}
