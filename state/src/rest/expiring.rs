//! States with a time to live at rest: what is stored, deadlines and all, whether or not it has expired.

use crate::expire::{Expiring, Timed};
use crate::handle::{List, Map, Reducing, Value};

macro_rules! stored {
    ($($handle:ident[$($key:ident)?]),+) => {
        $(impl<$($key: 'static,)? T: 'static> Expiring<$handle<$($key,)? T>> {
            /// The state as it is stored: each entry with its deadline, for reading and changing it at rest.
            pub const fn stored(self) -> $handle<$($key,)? Timed<T>> {
                let handle = self.handle();
                $handle::new(handle.name()).version(handle.schema_version())
            }
        })+
    };
}

stored!(Value[], Reducing[], List[], Map[K]);
