"""Where runs execute: pools of hardware, and the executors that start jobs. Never imports the planner."""
