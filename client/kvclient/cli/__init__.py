"""kvctl: the command line tool. `main` has the commands, `session` what they ask of the cluster, `show` what is printed."""
