# The guided tour of one training step: gdb -q -nx -x debug/tour.gdb build/tour      (make debug does just that)
set pagination off
set confirm off
set width 0
source debug/ctm_gdb.py
ctm tour
