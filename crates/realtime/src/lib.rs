//! `/realtime/v1`: channels that carry broadcasts, presence and the database's changes, as Supabase's clients expect.

pub mod bus;
pub mod changes;
