//! Every change goes through submit.
