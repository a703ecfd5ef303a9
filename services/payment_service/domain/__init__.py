"""What is decided about payments, without any I/O?

`payments` says where a payment stands, `attempts` and `refunds` where their parts do; `paying` and `refunding` change
them; `answers` is what a gateway can say when it is asked, `schedule` when it is asked unbidden, `reconciling` what
follows from that; `resolving` is what operators decide.
"""
