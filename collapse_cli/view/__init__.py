"""`collapse view`: the pages of `collapse report` on 127.0.0.1, following runs while they are at work. It writes into no run's folder."""
