//! The system, through its real doors.

mod first_run;
