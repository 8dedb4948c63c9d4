// All parts have subscribed: show the empty board.

board.start();
