//! The promises of Situ, each shown by a test.
