//! Every outgoing connection passes here.
