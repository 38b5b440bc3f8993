//! Turns credentials into a principal and seals what must not be read; decides nothing about resources.
