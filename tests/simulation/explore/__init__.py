"""Every interleaving of a small configuration: breadth first over the pure core's states, to a depth.

Two or three replicas run the shipped core. What may happen next is a list of actions: a message arrives, a flush ends, a
compare-and-set lands, is answered, or gets no answer, a watch shows the state, time passes, one replica ticks, a write is
proposed, a process dies or starts. Rare things are bounded in number (`Bounds`), all else is tried in every order; states
that are the same, by a hash of all that the replicas, disks, queues and coordination hold, are gone on with once.
Time is one clock that everybody reads when it next handles something, so a replica that is not chosen is one that is paused.

To a depth of eight or so that is every order. Deeper runs are explored with a bound on deviations (Emmi, Qadeer and
Rakamaric, "Delay-bounded scheduling", 2011): in every state the usual next action costs nothing, any other one does.
"""
