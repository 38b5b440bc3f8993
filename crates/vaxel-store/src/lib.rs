//! The only place that knows the SQL engine.
