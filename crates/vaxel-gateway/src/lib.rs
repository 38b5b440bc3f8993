//! The data plane: nothing here waits for the database.
